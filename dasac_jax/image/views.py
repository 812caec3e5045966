"""The views that training sees, made on device from decoded images.

Every function is pure and compiles with static shapes. What an item looks like follows from the
step's key and the item's number in the global batch alone, so it is the same on any number of
devices.
"""

from functools import partial

import jax
import jax.numpy as jnp

from dasac_jax.image import colour
from dasac_jax.image.blur import gaussian_blur
from dasac_jax.image.view_parameters import (
    Jitter,
    Noise,
    Window,
    draw_crop,
    draw_jittered_crop,
    draw_view,
)
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, standardise
from dasac_jax.image.resize import (
    crop_axis,
    gather_nearest,
    inside_mask,
    resample,
    resize_matrix,
    zoom_axis,
)
from dasac_jax.image.warp import view_matrices

IGNORED = 255
SOURCE, TARGET = 0, 1

Size = tuple[int, int]
Range = tuple[float, float]
Statistics = tuple[float, float, float]


def item_key(key: jax.Array, domain: int, item: jax.Array) -> jax.Array:
    """The key of one item: `item` counts source rows, target rows or target groups globally."""
    return jax.random.fold_in(jax.random.fold_in(key, domain), item)


def crop_view(image: jax.Array, window: Window, size: Size) -> tuple[jax.Array, jax.Array]:
    """Scale, crop and flip one image.

    Args:
        image: (h, w, 3) uint8.

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
    return gather_nearest(label, rows, columns, IGNORED)[0]


def _crop_axes(shape: Size, window: Window, size: Size):
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
    """One view of a group's frame: flipped first, then the window resized back to the frame.

    The view matrices undo exactly this order.

    Args:
        frame: (H, W, 3) float32 in [0, 1].
        inside: (H,), (W,) bool, the frame's rows and columns that show the image.

    Returns:
        view (H, W, 3) float32 in [0, 1], and padded (H, W) bool.
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
    """Colour jitter on one image (H, W, 3) in [0, 1], where it was drawn."""
    return jax.lax.cond(
        jitter.apply,
        lambda x: colour.jitter(x, jitter.factors, jitter.order, valid),
        lambda x: x,
        image,
    )


def photometric_noise(images: jax.Array, noise: Noise, valid: jax.Array) -> jax.Array:
    """Blur, colour jitter and grey on student views.

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


def _finish(images: jax.Array, inside: jax.Array, mean: Statistics, std: Statistics) -> jax.Array:
    """Normalise; padded pixels become 0, the value of the mean."""
    return jnp.where(inside[..., None], standardise(images, mean, std), 0.0)


def window_matrices(windows: Window, size: Size) -> tuple[jax.Array, jax.Array]:
    """to_reference and from_reference (V, 2, 3) of windows with a leading axis of V."""
    lengths = windows.lengths.astype(jnp.float32)
    centres = windows.offsets + lengths / 2 - jnp.array(size, jnp.float32) / 2
    flips = jnp.where(windows.flip, -1.0, 1.0)
    return view_matrices(centres, windows.scale, flips, size)


def target_views(
    key: jax.Array,
    images: jax.Array,
    target_view: jax.Array,
    *,
    size: Size,
    num_views: int,
    target_scale: Range,
    zoom: Range,
    jitter: float,
    hue: float,
) -> dict[str, jax.Array]:
    """Student and teacher views of target images; see `adapt_views` for shapes."""
    groups, places = target_view // num_views, target_view % num_views

    def frame(image, group):
        # 0 leaves the numbers from 1 on to the views.
        joint = jax.random.fold_in(item_key(key, TARGET, group), 0)
        return group_frame(image, draw_crop(joint, size, size, target_scale), size)

    def draw(group, place):
        view_key = jax.random.fold_in(item_key(key, TARGET, group), place + 1)
        return draw_view(view_key, place, size, zoom, jitter, hue)

    frames, inside = jax.vmap(frame)(images, groups[0] + jnp.arange(images.shape[0]))
    row = groups - groups[0]
    windows, noise = jax.vmap(draw)(groups, places)
    clean, padded = jax.vmap(zoom_view)(frames[row], tuple(x[row] for x in inside), windows)
    noisy = photometric_noise(clean, noise, ~padded)
    to_reference, from_reference = window_matrices(windows, size)
    return {
        "student_view": _finish(noisy, ~padded, IMAGENET_MEAN, IMAGENET_STD),
        "teacher_view": _finish(clean, ~padded, IMAGENET_MEAN, IMAGENET_STD),
        "padded": padded,
        "to_reference": to_reference,
        "from_reference": from_reference,
    }


def adapt_views(
    key: jax.Array,
    raw: dict[str, jax.Array],
    *,
    size: Size,
    num_views: int,
    source_scale: Range = (0.5, 1.0),
    target_scale: Range = (1.0, 1.1),
    zoom: Range = (0.5, 1.0),
    jitter: float = 0.4,
    hue: float = 0.1,
    source_mean: Statistics,
    source_std: Statistics,
) -> dict[str, jax.Array]:
    """The adaptation step's batch from decoded images.

    Source images are scaled, flipped and cropped. A target image is resized to the crop, scaled a
    little and flipped for its whole group; each view then flips on its own and, but for view 0,
    zooms into a window. Student views also get photometric noise.

    Args:
        key: the step's key.
        raw: source_image (b, h, w, 3) uint8, source_label (b, h, w) uint8, source_item (b,) int32
            positions in the global batch; target_image (g, h', w', 3) uint8, one per group that
            has views here; target_view (V,) int32, group * num_views + place in the group,
            ascending.
        size: (H, W) of the crop.
        zoom: range of the window's share of each side; above 1 zooms out and pads.
        jitter: strength of brightness, contrast and saturation jitter; hue: in turns.
        source_mean, source_std: what the source is normalised with, RGB in [0, 1].

    Returns:
        source_image (b, H, W, 3) float32 normalised, source_label (b, H, W) int32, student_view
        and teacher_view (V, H, W, 3) float32 normalised, padded (V, H, W) bool, to_reference and
        from_reference (V, 2, 3) float32. Padded pixels are 0, padded source labels 255.
    """

    def source(image, label, item):
        window = draw_crop(item_key(key, SOURCE, item), image.shape[:2], size, source_scale)
        return *crop_view(image, window, size), crop_label(label, window, size)

    images, inside, labels = jax.vmap(source)(
        raw["source_image"], raw["source_label"], raw["source_item"]
    )
    target = target_views(
        key,
        raw["target_image"],
        raw["target_view"],
        size=size,
        num_views=num_views,
        target_scale=target_scale,
        zoom=zoom,
        jitter=jitter,
        hue=hue,
    )
    return {
        "source_image": _finish(images, inside, source_mean, source_std),
        "source_label": labels,
        **target,
    }


def baseline_views(
    key: jax.Array,
    raw: dict[str, jax.Array],
    *,
    size: Size,
    scale: Range = (0.5, 2.0),
    jitter: float,
    source_mean: Statistics,
    source_std: Statistics,
) -> dict[str, jax.Array]:
    """The baseline step's batch: both domains scaled, flipped, cropped and jittered alike.

    Args:
        key: the step's key.
        raw: source_image (b, h, w, 3) uint8, source_label (b, h, w) uint8, source_item (b,) int32;
            target_image (n, h', w', 3) uint8, target_item (n,) int32; items are positions in the
            global batch.
        size: (H, W) of the crop.
        jitter: strength of the colour jitter; the hue turns by at most min(0.5, jitter).
        source_mean, source_std: what the source is normalised with, RGB in [0, 1].

    Returns:
        source_image (b, H, W, 3) and target_image (n, H, W, 3) float32 normalised, source_label
        (b, H, W) int32. Padded pixels are 0, padded labels 255.
    """

    def draw(domain, shape, item):
        item = item_key(key, domain, item)
        return draw_jittered_crop(item, shape, size, scale, jitter, min(0.5, jitter))

    def views(domain, images, items):
        windows, jitters = jax.vmap(partial(draw, domain, images.shape[1:3]))(items)
        crops, inside = jax.vmap(partial(crop_view, size=size))(images, windows)
        crops = jax.lax.map(lambda item: jitter_image(*item), (crops, jitters, inside))
        return crops, inside, windows

    source, source_inside, windows = views(SOURCE, raw["source_image"], raw["source_item"])
    target, target_inside, _ = views(TARGET, raw["target_image"], raw["target_item"])
    labels = jax.vmap(partial(crop_label, size=size))(raw["source_label"], windows)
    return {
        "source_image": _finish(source, source_inside, source_mean, source_std),
        "source_label": labels,
        "target_image": _finish(target, target_inside, IMAGENET_MEAN, IMAGENET_STD),
    }
