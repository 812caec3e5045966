"""Pillow's resizing as one interpolation matrix per axis.

A view is an image that was resized, cropped, flipped, cut to a window and resized again. Each of
these steps acts on rows and columns separately. So all of them together are one (out, in) matrix
per axis, and a view costs two matrix products. Image sizes are static; scales, offsets and flips
may be traced values.

Positions along an axis are in pixels. Pixel j covers [j, j + 1) and its centre is j + 0.5.
"""

import jax
import jax.numpy as jnp


def bilinear_matrix(
    centres: jax.Array,
    size: int,
    scale: jax.Array | float,
    lower: jax.Array | int = 0,
    upper: jax.Array | int | None = None,
) -> jax.Array:
    """Pillow's bilinear weights with antialiasing.

    Args:
        centres: (out,) float32, the position on the input axis that each output pixel samples.
        size: number of input pixels.
        scale: input pixels per output pixel; when shrinking, each output pixel averages over a
            triangle that is wider by this factor.
        lower, upper: centres are moved into the pixels [lower, upper). When enlarging, no pixel
            outside them gets any weight, as if they had been cut out first.

    Returns:
        (out, size) float32, every row sums to 1. A centre beyond the border samples the border
        pixel.
    """
    upper = size if upper is None else upper
    pixels = jnp.arange(size) + 0.5
    # A centre less than half a pixel from the border gives the border pixel all the weight after
    # normalisation, so moving it to the pixel's centre changes nothing.
    centres = jnp.clip(centres, lower + 0.5, upper - 0.5)
    reach = jnp.maximum(1.0, scale)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(pixels - centres[:, None]) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def crop_axis(
    rows: int, size: int, length: jax.Array, offset: jax.Array, flip: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Resize an axis to `length` pixels, crop `rows` of them from `offset` on, then flip.

    Returns:
        matrix (rows, size) float32 for images, and nearest (rows,) int32 for labels: the index of
        the input pixel that Pillow's nearest resizing takes, outside [0, size) where the crop
        passes the border.
    """
    i = jnp.arange(rows)
    i = jnp.where(flip, rows - 1 - i, i) + offset
    scale = size / length
    matrix = bilinear_matrix((i + 0.5) * scale, size, scale)
    # Whole-number arithmetic, because a rounding error at a pixel's edge would change a label.
    nearest = (2 * i + 1) * size // (2 * length)
    return matrix, nearest


def zoom_axis(
    size: int, length: jax.Array, offset: jax.Array, flip: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Flip an axis, take a window of `length` pixels from `offset` on, resize it to `size`.

    A window longer than the axis (with a negative offset) zooms out and passes the border.

    Returns:
        matrix (size, size) float32 and nearest (size,) int32, as in `crop_axis`.
    """
    i = jnp.arange(size)
    scale = length / size
    centres = (i + 0.5) * scale + offset
    lower, upper = jnp.maximum(offset, 0), jnp.minimum(offset + length, size)
    nearest = (2 * i + 1) * length // (2 * size) + offset

    centres = jnp.where(flip, size - centres, centres)
    lower, upper = jnp.where(flip, size - upper, lower), jnp.where(flip, size - lower, upper)
    nearest = jnp.where(flip, size - 1 - nearest, nearest)
    return bilinear_matrix(centres, size, scale, lower, upper), nearest


def resample(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Resample an image by one interpolation matrix per axis.

    Args:
        image: (h, w, C), any dtype.
        rows: (H, h) float32. columns: (W, w) float32.

    Returns:
        (H, W, C) float32 in the image's units.
    """
    image = image.astype(jnp.float32)
    precision = jax.lax.Precision.HIGHEST
    (H, h), (W, w) = rows.shape, columns.shape
    if H * w * (h + W) <= W * h * (w + H):  # then rows first need fewer multiplications
        image = jnp.einsum("Hh,hwc->Hwc", rows, image, precision=precision)
        return jnp.einsum("Ww,Hwc->HWc", columns, image, precision=precision)
    image = jnp.einsum("Ww,hwc->hWc", columns, image, precision=precision)
    return jnp.einsum("Hh,hWc->HWc", rows, image, precision=precision)


def gather_nearest(
    label: jax.Array, rows: jax.Array, columns: jax.Array, fill: int
) -> tuple[jax.Array, jax.Array]:
    """Take the label pixels that one index per row and per column name.

    Args:
        label: (h, w) integers.
        rows: (H,) int32. columns: (W,) int32. An index past the border stands for no pixel.
        fill: label where there is no pixel.

    Returns:
        labels (H, W) int32 and inside (H, W) bool: true where a pixel was taken.
    """
    h, w = label.shape
    inside = inside_mask(rows, h)[:, None] & inside_mask(columns, w)[None, :]
    rows, columns = jnp.clip(rows, 0, h - 1), jnp.clip(columns, 0, w - 1)
    taken = label[rows][:, columns].astype(jnp.int32)
    return jnp.where(inside, taken, fill), inside


def inside_mask(nearest: jax.Array, size: int) -> jax.Array:
    """(n,) int32 indices -> (n,) bool, true where they lie on an axis of `size` pixels."""
    return (nearest >= 0) & (nearest < size)


def resize_matrix(out: int, size: int) -> jax.Array:
    """(out, size) float32: the matrix of a plain resize with static sizes."""
    return bilinear_matrix((jnp.arange(out) + 0.5) * (size / out), size, size / out)


def resize_image(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize as Pillow does (bilinear with antialiasing), without its rounding to whole values.

    Args:
        image: (h, w, C), any dtype.
        size: (H, W), static.

    Returns:
        (H, W, C) float32 in the image's units.
    """
    h, w, _ = image.shape
    return resample(image, resize_matrix(size[0], h), resize_matrix(size[1], w))
