"""Make the views that the networks are trained on from decoded images, on device.

Every function is pure and compiles with static shapes. The views of an item depend only on the
step's key and on the item's number in the global batch, so they are the same on any number of
devices.
"""

from functools import partial

import jax
import jax.numpy as jnp

from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.image.transforms import (
    Size,
    Statistics,
    crop_label,
    crop_view,
    group_frame,
    jitter_image,
    photometric_noise,
    standardise_inside,
    window_matrices,
    zoom_view,
)
from dasac_jax.image.view_parameters import draw_crop, draw_jittered_crop, draw_view

SOURCE, TARGET = 0, 1  # the domains' numbers in `item_key`

Range = tuple[float, float]


def item_key(key: jax.Array, domain: int, item: jax.Array) -> jax.Array:
    """The random key of one item of a step.

    Args:
        key: the step's key.
        domain: SOURCE or TARGET.
        item: () int, the number of the item in the global batch: of a source row, of a baseline's
            target row, or of a group of target views.
    """
    return jax.random.fold_in(jax.random.fold_in(key, domain), item)


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
    """The target's part of `adapt_views`, which describes the arguments and results."""
    groups, places = target_view // num_views, target_view % num_views

    def frame(image, group):
        # Number 0 gives the key of the group's frame, numbers from 1 on the keys of its views.
        frame_key = jax.random.fold_in(item_key(key, TARGET, group), 0)
        return group_frame(image, draw_crop(frame_key, size, size, target_scale), size)

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
        "student_view": standardise_inside(noisy, ~padded, IMAGENET_MEAN, IMAGENET_STD),
        "teacher_view": standardise_inside(clean, ~padded, IMAGENET_MEAN, IMAGENET_STD),
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
    source_scale: Range,
    target_scale: Range,
    zoom: Range,
    jitter: float,
    hue: float,
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
        num_views: views per group.
        source_scale, target_scale: ranges of the factors by which images are scaled.
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
    source_images = standardise_inside(images, inside, source_mean, source_std)
    return {"source_image": source_images, "source_label": labels} | target_views(
        key, raw["target_image"], raw["target_view"],
        size=size, num_views=num_views, target_scale=target_scale, zoom=zoom,
        jitter=jitter, hue=hue,
    )  # fmt: skip


def baseline_views(
    key: jax.Array,
    raw: dict[str, jax.Array],
    *,
    size: Size,
    scale: Range,
    jitter: float,
    source_mean: Statistics,
    source_std: Statistics,
) -> dict[str, jax.Array]:
    """The baseline step's batch: both domains scaled, flipped, cropped and jittered alike.

    Args:
        key: the step's key.
        raw: source_image (b, h, w, 3) uint8, source_label (b, h, w) uint8, source_item (b,) int32;
            target_image (n, h', w', 3) uint8, target_item (n,) int32, which may both be missing;
            items are positions in the global batch.
        size: (H, W) of the crop.
        scale: range of the factor by which images are scaled.
        jitter: strength of the colour jitter; the hue turns by at most min(0.5, jitter).
        source_mean, source_std: what the source is normalised with, RGB in [0, 1].

    Returns:
        source_image (b, H, W, 3) and, of a batch that has them, target_image (n, H, W, 3) float32
        normalised, source_label (b, H, W) int32. Padded pixels are 0, padded labels 255.
    """

    def draw(domain, shape, item):
        own_key = item_key(key, domain, item)
        return draw_jittered_crop(own_key, shape, size, scale, jitter, min(0.5, jitter))

    def views(domain, images, items):
        windows, jitters = jax.vmap(partial(draw, domain, images.shape[1:3]))(items)
        crops, inside = jax.vmap(partial(crop_view, size=size))(images, windows)
        crops = jax.lax.map(lambda item: jitter_image(*item), (crops, jitters, inside))
        return crops, inside, windows

    source, source_inside, windows = views(SOURCE, raw["source_image"], raw["source_item"])
    labels = jax.vmap(partial(crop_label, size=size))(raw["source_label"], windows)
    batch = {
        "source_image": standardise_inside(source, source_inside, source_mean, source_std),
        "source_label": labels,
    }
    if "target_image" in raw:
        target, inside, _ = views(TARGET, raw["target_image"], raw["target_item"])
        batch["target_image"] = standardise_inside(target, inside, IMAGENET_MEAN, IMAGENET_STD)
    return batch
