"""Convolutions as matrix products, for the shapes where XLA's own convolutions are slow on CPUs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def pointwise(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """A 1×1 convolution: (B, H, W, C), (C, D) → (B, H, W, D).

    The product is over one axis of pixels: over three, XLA transposes x for the gradient.
    """
    y = x.reshape(-1, x.shape[-1]) @ matrix
    return y.reshape(*x.shape[:-1], -1)


def neighbourhoods(x: jax.Array, k: int, padding: int) -> jax.Array:
    """The k × k pixels around each: (B, H, W, C) → (B, H', W', k · k · C), as a kernel has them."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    return jnp.concatenate(shifted, axis=-1)


def few_outputs(channels: int, features: int) -> bool:
    """Whether `shifted` pays for 3×3 convolutions: nine results are no more than the inputs."""
    return 9 * features <= channels


def shifted(
    x: jax.Array, kernels: Sequence[jax.Array], dilations: Sequence[int]
) -> list[jax.Array]:
    """Dilated convolutions of the same x as one product, whose results are shifted and added.

    (B, H, W, C) and kernels (3, 3, C, D) → (B, H, W, D) float32 for each, padded by its dilation.
    XLA's convolution takes 2 to 15 times as long on CPU for a wide dilation, forward and for the
    kernel's gradient. With one product for all, x is read once and its gradient written once. Taps
    that see only padding are left out: with dilation 24 on 17 rows, three of nine remain.
    """
    height, width = x.shape[1:3]
    seen = [
        [(i, j) for i in range(3) for j in range(3)
         if abs(i - 1) * d < height and abs(j - 1) * d < width]
        for d in dilations
    ]  # fmt: skip
    columns = [_columns(kernel, taps) for kernel, taps in zip(kernels, seen, strict=True)]
    # The gradient of a split is a concatenation, that of slices a sum of arrays padded with zeros.
    ends = np.cumsum([part.shape[1] for part in columns])[:-1]
    parts = jnp.split(pointwise(x, jnp.concatenate(columns, axis=1)), ends, axis=-1)
    results = []
    for part, taps, d in zip(parts, seen, dilations, strict=True):
        total = 0.0
        for product, (i, j) in zip(jnp.split(part, len(taps), axis=-1), taps, strict=True):
            total += _moved(_moved(product.astype(jnp.float32), 1, (i - 1) * d), 2, (j - 1) * d)
        results.append(total)
    return results


def _columns(kernel, taps):
    """(3, 3, C, D) → (C, len(taps) · D): the matrices of taps (i, j) side by side."""
    matrices = kernel.reshape(9, *kernel.shape[2:])
    if len(taps) < 9:
        matrices = matrices[np.array([3 * i + j for i, j in taps])]
    return jnp.moveaxis(matrices, 0, 1).reshape(kernel.shape[2], -1)


def _moved(x: jax.Array, axis: int, shift: int) -> jax.Array:
    """x with entry n + shift of an axis at place n; 0 where there is none."""
    size = x.shape[axis]
    x = lax.slice_in_dim(x, max(shift, 0), size + min(shift, 0), axis=axis)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (max(-shift, 0), max(shift, 0))
    return jnp.pad(x, padding)
