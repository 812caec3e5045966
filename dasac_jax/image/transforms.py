"""Apply geometry, colour and noise to single images, given the parameters drawn for them.

`view_parameters` draws the parameters; `views` uses both to make the views of whole batches.
"""

import jax
import jax.numpy as jnp

from dasac_jax.image import colour
from dasac_jax.image.blur import gaussian_blur
from dasac_jax.image.label_values import IGNORE
from dasac_jax.image.normalise import standardise
from dasac_jax.image.resize import (
    crop_axis,
    gather_nearest,
    inside_mask,
    resample,
    resize_matrix,
    zoom_axis,
)
from dasac_jax.image.view_parameters import Jitter, Noise, Window
from dasac_jax.image.warp import view_matrices

Size = tuple[int, int]
"""Height and width in pixels."""

Statistics = tuple[float, float, float]
"""A mean or standard deviation of each RGB channel, in [0, 1]."""


def crop_view(image: jax.Array, window: Window, size: Size) -> tuple[jax.Array, jax.Array]:
    """Scale, crop and flip one image.

    Args:
        image: (h, w, 3) uint8.
        size: (H, W) of the crop.

    Returns:
        image (H, W, 3) float32 in [0, 1], and inside (H, W) bool: false where the crop passes the
        image's border.
    """
    (rows, in_rows), (columns, in_columns) = _crop_axes(image.shape[:2], window, size)
    inside = inside_mask(in_rows, image.shape[0])[:, None] & inside_mask(in_columns, image.shape[1])
    return resample(image, rows, columns) / 255.0, inside


def crop_label(label: jax.Array, window: Window, size: Size) -> jax.Array:
    """(h, w) integers -> (H, W) int32: the same crop, nearest pixels, 255 past the border."""
    (_, rows), (_, columns) = _crop_axes(label.shape, window, size)
    return gather_nearest(label, rows, columns, IGNORE)[0]


def _crop_axes(shape: Size, window: Window, size: Size) -> list[tuple[jax.Array, jax.Array]]:
    """`crop_axis` of the rows and of the columns; only the columns are ever flipped."""
    flips = (jnp.array(False), window.flip)
    return [
        crop_axis(size[a], shape[a], window.lengths[a], window.offsets[a], flips[a])
        for a in range(2)
    ]


def group_frame(
    image: jax.Array, window: Window, size: Size
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The reference frame that all views of a group share.

    The image is resized to the crop, then scaled, cropped back and flipped.

    Args:
        image: (h', w', 3) uint8.
        window: lengths and offsets refer to the resized image.
        size: (H, W) of the crop.

    Returns:
        frame (H, W, 3) float32 in [0, 1], and (inside rows (H,), inside columns (W,)) bool.
    """
    matrices, inside = [], []
    for a, (matrix, nearest) in enumerate(_crop_axes(size, window, size)):
        resize = resize_matrix(size[a], image.shape[a])
        matrices.append(jnp.dot(matrix, resize, precision=jax.lax.Precision.HIGHEST))
        inside.append(inside_mask(nearest, size[a]))
    return resample(image, *matrices) / 255.0, tuple(inside)


def zoom_view(
    frame: jax.Array, inside: tuple[jax.Array, jax.Array], window: Window
) -> tuple[jax.Array, jax.Array]:
    """One view of a group's frame: flipped first, then the window resized to the frame's size.

    The matrices of `window_matrices` rely on this order.

    Args:
        frame: (H, W, 3) float32 in [0, 1].
        inside: (H,), (W,) bool, the frame's rows and columns that show the image.

    Returns:
        view (H, W, 3) float32 in [0, 1], and padded (H, W) bool: true where it shows no image.
    """
    flips = (jnp.array(False), window.flip)
    matrices, shown = [], []
    for a in range(2):
        size = frame.shape[a]
        matrix, nearest = zoom_axis(size, window.lengths[a], window.offsets[a], flips[a])
        matrices.append(matrix)
        taken = inside[a][jnp.clip(nearest, 0, size - 1)]
        shown.append(inside_mask(nearest, size) & taken)
    return resample(frame, *matrices), ~(shown[0][:, None] & shown[1])


def jitter_image(image: jax.Array, jitter: Jitter, valid: jax.Array) -> jax.Array:
    """Colour jitter of one image (H, W, 3) in [0, 1] where `jitter.apply` is true.

    valid: (H, W) bool, the pixels that are not padding.
    """
    return jax.lax.cond(
        jitter.apply,
        lambda x: colour.jitter(x, jitter.factors, jitter.order, valid),
        lambda x: x,
        image,
    )


def photometric_noise(images: jax.Array, noise: Noise, valid: jax.Array) -> jax.Array:
    """Blur, colour jitter and conversion to grey of student views.

    Args:
        images: (V, H, W, 3) float32 in [0, 1].
        noise: every field with a leading axis of V.
        valid: (V, H, W) bool, the pixels that are not padding.

    Returns:
        (V, H, W, 3) float32 in [0, 1].
    """

    def recolour(item):
        image, jitter, grey, mask = item
        image = jitter_image(image, jitter, mask)
        return jax.lax.cond(grey, colour.grey, lambda x: x, image)

    images = jax.vmap(gaussian_blur)(images, noise.radius)
    # One view at a time, so that only the operations that were drawn are computed.
    return jax.lax.map(recolour, (images, noise.jitter, noise.grey, valid))


def standardise_inside(
    images: jax.Array, inside: jax.Array, mean: Statistics, std: Statistics
) -> jax.Array:
    """(..., 3) RGB in [0, 1] -> normalised float32, 0 (the mean) for pixels not `inside` (...)."""
    return jnp.where(inside[..., None], standardise(images, mean, std), 0.0)


def window_matrices(windows: Window, size: Size) -> tuple[jax.Array, jax.Array]:
    """to_reference and from_reference (V, 2, 3), as from `view_matrices`, of V views.

    windows: every field with a leading axis of V. size: (H, W) of the frame.
    """
    lengths = windows.lengths.astype(jnp.float32)
    centres = windows.offsets + lengths / 2 - jnp.array(size, jnp.float32) / 2
    flips = jnp.where(windows.flip, -1.0, 1.0)
    return view_matrices(centres, windows.scale, flips, size)
