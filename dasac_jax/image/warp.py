"""Affine warps of views that differ from their frame only by flip, scale and shift.

The convention is that of PyTorch's `affine_grid` followed by `grid_sample` (bilinear, zeros
outside, corners not aligned): a matrix maps output positions to input positions, in units in which
the image spans [-1, 1] from the outer edge of the first pixel to that of the last. Without rotation
or shear the axes are independent, so that each output pixel interpolates two pixels along each
axis.
"""

import jax
import jax.numpy as jnp


def view_matrices(
    offsets: jax.Array, scales: jax.Array, flips: jax.Array, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Affine matrices between views and the frame that they were cut from.

    A view is made of the frame by flipping it (f = -1) or not (f = 1), then taking a window of s
    times its size whose centre lies (dy, dx) pixels from the frame's centre, resized to H x W.

    Args:
        offsets: (B, 2) dy, dx in pixels.
        scales: (B,) s > 0; below 1 zooms in, above 1 zooms out.
        flips: (B,) 1 or -1.
        size: (H, W).

    Returns:
        to_reference, from_reference: (B, 2, 3) float32, each the other's inverse, for
        `warp_affine`: the first warps a view to the frame, the second the frame to
        the view.
    """
    offsets, s, f = (jnp.asarray(x, jnp.float32) for x in (offsets, scales, flips))
    y, x = (2 * offsets[:, axis] / size[axis] for axis in (0, 1))
    zero = jnp.zeros_like(s)

    def matrix(*entries):
        return jnp.stack(entries, -1).reshape(-1, 2, 3)

    to_reference = matrix(f / s, zero, -x / s, zero, 1 / s, -y / s)
    from_reference = matrix(f * s, zero, f * x, zero, s, y)
    return to_reference, from_reference


def warp_affine(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Sample `images` at the places that `matrices` map the output's pixel centres to.

    Beyond the border images are 0. Raises ValueError for arguments of other shapes.

    Args:
        images: (B, H, W, C) float.
        matrices: (B, 2, 3) float32, rows x and y; the off-diagonal terms must be 0, as those of
            `view_matrices` are.

    Returns:
        (B, H, W, C) of the images' type.
    """
    if images.ndim != 4 or matrices.shape != (images.shape[0], 2, 3):
        raise ValueError(f"need (B, H, W, C) and (B, 2, 3), got {images.shape}, {matrices.shape}")
    _, height, width, _ = images.shape
    rows = _two_taps(matrices[:, 1, 1], matrices[:, 1, 2], height)
    columns = _two_taps(matrices[:, 0, 0], matrices[:, 0, 2], width)
    return jax.vmap(_interpolate)(images, *rows, *columns)


def warp_ones(matrices: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`warp_affine` of an image of ones: the share of each output pixel that is covered.

    Args:
        matrices: (B, 2, 3) float32, as for `warp_affine`.
        size: (H, W).

    Returns:
        (B, H, W) float32 in [0, 1].
    """
    _, rows = _two_taps(matrices[:, 1, 1], matrices[:, 1, 2], size[0])
    _, columns = _two_taps(matrices[:, 0, 0], matrices[:, 0, 2], size[1])
    return rows.sum(-1)[:, :, None] * columns.sum(-1)[:, None, :]


def _two_taps(scale: jax.Array, shift: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """The two pixels to interpolate between along one axis, and their weights.

    scale, shift: (B,). Returns indices (B, length, 2) int32 and weights (B, length, 2) float32, 0
    for pixels beyond the border.
    """
    # Relative to the centre, flips and identities land on whole pixels without rounding errors.
    centre = (length - 1) / 2
    relative = jnp.arange(length, dtype=jnp.float32) - centre
    position = scale[:, None] * relative + (shift * (length / 2))[:, None] + centre
    low = jnp.floor(position)
    index = jnp.stack([low, low + 1], -1)
    weight = jnp.stack([low + 1 - position, position - low], -1)
    inside = (index >= 0) & (index <= length - 1)
    return jnp.clip(index, 0, length - 1).astype(jnp.int32), jnp.where(inside, weight, 0)


def _interpolate(
    image: jax.Array,
    row: jax.Array,
    row_weight: jax.Array,
    column: jax.Array,
    column_weight: jax.Array,
) -> jax.Array:
    """One image (H, W, C), interpolated along its rows, then along its columns.

    row, row_weight: (H, 2); column, column_weight: (W, 2), from `_two_taps`.
    """
    row_weight = row_weight.astype(image.dtype)[:, :, None, None]
    column_weight = column_weight.astype(image.dtype)[:, :, None]
    upper, lower = (jnp.take(image, row[:, tap], axis=0, mode="clip") for tap in (0, 1))
    image = upper * row_weight[:, 0] + lower * row_weight[:, 1]
    left, right = (jnp.take(image, column[:, tap], axis=1, mode="clip") for tap in (0, 1))
    return left * column_weight[:, 0] + right * column_weight[:, 1]
