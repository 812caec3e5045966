"""3×3 convolutions by minimal filtering (Winograd 1980; Lavin and Gray 2016), for CPUs.

Along an axis, m results of a filter with 3 taps need m + 2 products instead of 3 · m: inputs and
taps are taken for polynomials, evaluated at m + 1 points and at infinity, and multiplied there; the
products are interpolated. On both axes and with channels, each of the (m + 2)² pairs of points
takes one matrix product. A convolution dilated by d treats d interleaved grids of pixels along each
axis alike and apart.

The gradient is written by hand. JAX's own derivation takes as few products, but it spends more time
on what is around them than on the products.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dasac_jax.models.anew import after

# By the number m of results of a tile: the points besides infinity, chosen for small rounding.
_POINTS = {2: (0, 1, -1), 3: (0.5, -0.5, 1.5, -1.5), 4: (0, 0.75, -0.75, 1.5, -1.5)}
_TAPS = 3
_MIN_CHANNELS = 64
_MIN_PIXELS = 1000  # of all images together; fewer are fast anyway, and this compiles longer
_MAX_SHARE = 0.75  # of the plain convolution's products; above, the sums cost what products save


class _Axis(NamedTuple):
    """An axis of pixels, cut into `count` tiles of `tile` pixels in each of `dilation` grids.

    In an array of results it is two axes, (count, dilation). In an array of values at the points it
    is those two, and a new first axis numbers the points.
    """

    position: int  # from the end, of an image's axes
    size: int
    dilation: int
    tile: int

    @property
    def count(self) -> int:
        return -(-self.size // (self.dilation * self.tile))

    @property
    def points(self) -> int:
        return self.tile + _TAPS - 1

    @property
    def products(self) -> int:
        """Products along this axis; a plain convolution takes 3 · size."""
        return self.count * self.dilation * self.points


class _Matrices(NamedTuple):
    """results (m, n), taps (n, 3), inputs (n, n): y = results · ((taps · g) ⊙ (inputs · x))."""

    results: np.ndarray
    taps: np.ndarray
    inputs: np.ndarray


def pays(shape: Sequence[int], features: int, dilation: int) -> bool:
    """Whether `conv` of images (B, H, W, C) takes less time than XLA's convolution."""
    rows, columns = _axes(shape, dilation)
    if min(shape[-1], features) < _MIN_CHANNELS:
        return False
    if shape[0] * rows.size * columns.size < _MIN_PIXELS:
        return False
    direct = _TAPS**2 * rows.size * columns.size
    return rows.products * columns.products <= _MAX_SHARE * direct


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """(B, H, W, C), (3, 3, C, D) → (B, H, W, D), padded by `dilation`; all float32."""
    rows, columns = _axes(x.shape, dilation)
    # Filters at the points take four times the filters' memory: no layer's before its turn.
    kernel = after(x, kernel)
    products = _multiply(_of_inputs(x, rows, columns), _of_taps(kernel, rows, columns))
    return _results(products, len(x), rows, columns)


def _forward(x, kernel, dilation):
    return conv(x, kernel, dilation), (x, kernel)


def _backward(dilation, kept, upstream):
    # Values at the points are computed anew: keeping them takes two to four times the inputs'
    # memory, those of the filters four times that of the filters.
    x, kernel = (after(upstream, array) for array in kept)
    rows, columns = _axes(x.shape, dilation)
    products = _results_transposed(_results_transposed(upstream, rows), columns)
    products = _flatten(products)
    inputs = _multiply(products, _of_taps(kernel, rows, columns).swapaxes(1, 2))
    inputs = _unflatten(inputs, len(x), rows, columns)
    inputs = _inputs_transposed(_inputs_transposed(inputs, columns), rows)
    taps = _multiply(_of_inputs(x, rows, columns).swapaxes(1, 2), products)
    return inputs, _taps_transposed(taps, rows, columns)


conv.defvjp(_forward, _backward)


def _axes(shape: Sequence[int], dilation: int) -> tuple[_Axis, _Axis]:
    """Rows and columns, each cut into tiles of the size that takes the fewest products."""

    def cut(position):
        choices = (_Axis(position, shape[position], dilation, tile) for tile in _POINTS)
        return min(choices, key=lambda axis: axis.products)

    return cut(-3), cut(-2)


@functools.cache
def _matrices(tile: int) -> _Matrices:
    """The matrices of the transposed Toom-Cook algorithm, for tiles of `tile` results."""
    points = _POINTS[tile]

    def values(terms: int) -> np.ndarray:
        """(n, terms): a polynomial's coefficients → its values, at infinity the leading one."""
        infinity = [0] * (terms - 1) + [1]
        return np.array([[p**i for i in range(terms)] for p in points] + [infinity], np.float64)

    inputs = np.linalg.inv(values(tile + _TAPS - 1)).T
    # Powers of two, which round nothing, keep both factors at about the same size.
    scale = 2.0 ** np.round(np.log2(np.abs(inputs).sum(1, keepdims=True)))
    return _Matrices(values(tile).T, values(_TAPS) * scale, inputs / scale)


def _multiply(a, b):
    return lax.batch_matmul(a, b, precision=lax.Precision.HIGHEST)


def _combined(matrix, parts, axis=0):
    """matrix (p, q) times q arrays of the same shape; the p results lie along a new axis.

    They are computed as one sum. p sums that leave out factors of 0 are no faster, and take five
    times as many operations, which have to be traced, compiled and loaded.
    """
    shape = [1] * (parts[0].ndim + 1)
    shape[axis] = -1
    columns = matrix.astype(np.float32).T
    return sum(
        column.reshape(shape) * jnp.expand_dims(part, axis)
        for column, part in zip(columns, parts, strict=True)
    )


def _flatten(x):
    """(n', n, B, …, C) → (n' · n, pixels, C)."""
    return x.reshape(x.shape[0] * x.shape[1], -1, x.shape[-1])


def _unflatten(x, batch, rows, columns):
    """(n' · n, pixels, C) → (n', n, B, tiles, d, tiles', d, C)."""
    cuts = rows.count, rows.dilation, columns.count, columns.dilation
    return x.reshape(columns.points, rows.points, batch, *cuts, -1)


def _of_inputs(x, rows, columns):
    """Images at the points: (B, H, W, C) → (n' · n, pixels, C)."""
    return _flatten(_inputs(_inputs(x, rows), columns))


def _of_taps(kernel, rows, columns):
    """Filters at the points: (3, 3, C, D) → (n' · n, C, D)."""
    return _product(_both(_matrices(columns.tile).taps, _matrices(rows.tile).taps), kernel)


def _taps_transposed(x, rows, columns):
    """The transpose of `_of_taps`, for the gradient: (n' · n, C, D) → (3, 3, C, D)."""
    kernel = _product(_both(_matrices(columns.tile).taps, _matrices(rows.tile).taps).T, x)
    return kernel.reshape(_TAPS, _TAPS, *x.shape[1:])


def _both(columns, rows):
    """Matrices of both axes, (n', k) and (n, l), as one of (n' · n, l · k).

    On the axis of points those of the columns come first, on the other axis what is of the rows.
    """
    return np.einsum("yj,xi->yxij", columns, rows).reshape(len(columns) * len(rows), -1)


def _product(matrix, x):
    """A matrix (p, q) times x (…, C, D), whose first axes have q entries: (p, C, D)."""
    y = lax.dot(
        matrix.astype(np.float32), x.reshape(matrix.shape[1], -1), precision=lax.Precision.HIGHEST
    )
    return y.reshape(len(matrix), *x.shape[-2:])


def _inputs(x, axis):
    """Values at the points along an axis, of each tile with the pixels around it that it needs."""
    before = axis.dilation
    after = (axis.count + 1) * axis.tile * axis.dilation - axis.size - before
    x, tiles = _cut(x, axis, before, after)
    parts = []
    for i in range(axis.points):
        block, offset = divmod(i, axis.tile)
        part = lax.slice_in_dim(x, block, block + axis.count, axis=tiles)
        parts.append(lax.index_in_dim(part, offset, tiles + 1, keepdims=False))
    return _combined(_matrices(axis.tile).inputs, parts)


def _inputs_transposed(x, axis):
    """The transpose of `_inputs`, for the gradient.

    A pixel gets its share from its own tile, and from the tile before if that one needed it.
    """
    grid = x.ndim - 1 + axis.position
    weights = _matrices(axis.tile).inputs.T
    own = _combined(weights[: axis.tile], x, grid)
    before = _combined(weights[axis.tile :], x, grid)
    padding = [(0, 0)] * own.ndim
    padding[grid - 1] = (0, 1)
    own = jnp.pad(own, padding)
    padding[grid - 1], padding[grid] = (1, 0), (0, axis.tile - before.shape[grid])
    return _join(own + jnp.pad(before, padding), axis, axis.dilation)


def _results(x, batch, rows, columns):
    """Products at the points → images: (n' · n, pixels, D) → (B, H, W, D)."""
    matrix = _both(_matrices(columns.tile).results.T, _matrices(rows.tile).results.T)
    x = _product(matrix.T, x)
    tiles = rows.count, rows.dilation, columns.count, columns.dilation
    x = x.reshape(rows.tile, columns.tile, batch, *tiles, -1).transpose(2, 3, 0, 4, 5, 1, 6, 7)
    x = x.reshape(batch, rows.count * rows.tile * rows.dilation, -1, x.shape[-1])
    return x[:, : rows.size, : columns.size]


def _results_transposed(x, axis):
    """The transpose of what `_results` does along one axis, for the gradient."""
    after = axis.count * axis.tile * axis.dilation - axis.size
    x, tiles = _cut(x, axis, 0, after)
    parts = [lax.index_in_dim(x, i, tiles + 1, keepdims=False) for i in range(axis.tile)]
    return _combined(_matrices(axis.tile).results.T, parts)


def _cut(x, axis, before, after):
    """Pad an axis of pixels and split it into (tiles, tile, grids).

    Returns the array and the position of the axis of tiles.
    """
    position = x.ndim + axis.position
    padding = [(0, 0)] * x.ndim
    padding[position] = before, after
    x = jnp.pad(x, padding)
    cut = -1, axis.tile, axis.dilation
    return x.reshape(*x.shape[:position], *cut, *x.shape[position + 1 :]), position


def _join(x, axis, start):
    """The axes (tiles, tile, grids) → one axis of pixels, which begins at `start`."""
    position = x.ndim + axis.position - 2
    x = x.reshape(*x.shape[:position], -1, *x.shape[position + 3 :])
    return lax.slice_in_dim(x, start, start + axis.size, axis=position)
