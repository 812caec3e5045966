"""Whole views, made once more with Pillow from the parameters that were drawn for them."""

from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dasac_jax.image import views
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, source_statistics
from dasac_jax.image.view_parameters import draw_crop, draw_jittered_crop
from dasac_jax.image.warp import warp_affine
from dasac_jax.reporting.contact_sheet import drawn_views, warped_back

SIZE, GROUPS, VIEWS, ROWS = (64, 128), 2, 4, 4
SHAPE = (97, 163)  # odd, so that no pixel of a crop lies just between two pixels of the label
SOURCE_SCALE = (0.5, 1.0)
TARGET = {"size": SIZE, "num_views": VIEWS, "jitter": 0.4, "hue": 0.1}
MEAN, STD = source_statistics("gta5")
QUICKLY = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
STEPS = range(4)
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def photo(height, width, seed):
    """(height, width, 3) uint8 with what photographs have: shading, edges, lines and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    shading = 120 + 50 * np.sin(x / 25 + seed)
    image = shading[..., None] + y[..., None] / height * np.array([40, 10, -30])
    for _ in range(25):
        top, left = rng.integers(0, (height, width))
        tall, wide = rng.integers(2, (height // 2, width // 3))
        image[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(size=(height, width, 3)) * 4, 0, 255).astype(np.uint8)


def labels_of(height, width, seed):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 19, (height // 3 + 1, width // 4 + 1)).astype(np.uint8)
    return blocks.repeat(3, 0).repeat(4, 1)[:height, :width]


@pytest.fixture(scope="module")
def raw():
    images = [photo(*SHAPE, seed) for seed in range(ROWS)]
    return {
        "source_image": np.stack(images),
        "source_label": np.stack([labels_of(*SHAPE, seed) for seed in range(ROWS)]),
        "source_item": np.arange(ROWS, dtype=np.int32),
        "target_image": np.stack([photo(100, 180, 10 + group) for group in range(GROUPS)]),
        "target_view": np.arange(GROUPS * VIEWS, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def made(raw):
    """For every step the batch and the parameters behind it."""
    ranges = {"target_scale": (1.0, 1.1), "zoom": (0.5, 1.0)}

    @partial(jax.jit, compiler_options=QUICKLY)
    def make(key):
        batch = views.adapt_views(
            key, raw, source_scale=SOURCE_SCALE, source_mean=MEAN, source_std=STD,
            **TARGET, **ranges,
        )  # fmt: skip
        source = jax.vmap(
            lambda item: draw_crop(
                views.item_key(key, views.SOURCE, item), SHAPE, SIZE, SOURCE_SCALE
            )
        )(raw["source_item"])
        return batch, drawn_views(key, raw["target_view"], **TARGET, **ranges), source

    return [jax.tree.map(np.array, make(jax.random.key(step))) for step in STEPS]


def at(drawn, index):
    """One item's parameters."""
    return jax.tree.map(lambda x: x[index], drawn)


def cropped(image, window, fill, method):
    """Scaled, cropped with padding, flipped."""
    height, width = map(int, window.lengths)
    top, left = map(int, window.offsets)
    canvas = Image.new(image.mode, SIZE[::-1], fill)
    canvas.paste(image.resize((width, height), method), (-left, -top))
    return canvas.transpose(MIRROR) if window.flip else canvas


def zoomed(frame, window):
    """Flipped, then a window of it at full size."""
    frame = frame.transpose(MIRROR) if window.flip else frame
    top, left = map(int, window.offsets)
    height, width = map(int, window.lengths)
    cut = frame.crop((left, top, left + width, top + height))
    return cut.resize(frame.size, Image.Resampling.BILINEAR)


def turned(image, turn):
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray(np.array(hue) + np.uint8(int(turn * 255) % 256))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def jittered(image, jitter):
    """torchvision's ColorJitter on Pillow's images."""
    operations = (
        lambda factor: ImageEnhance.Brightness(image).enhance(factor),
        lambda factor: ImageEnhance.Contrast(image).enhance(factor),
        lambda factor: ImageEnhance.Color(image).enhance(factor),
        lambda factor: turned(image, factor),
    )
    for operation in jitter.order if jitter.apply else ():
        image = operations[operation](float(jitter.factors[operation]))
    return image


def jittered_inside(view, jitter, inside, colour):
    """torchvision's ColorJitter on tensors; padding has no say in the mean for contrast."""
    operations = [colour[name] for name in ("brightness", "contrast", "saturation", "hue")]
    image, box = np.array(view) / 255, np.ix_(inside.any(1), inside.any(0))
    for operation in jitter.order if jitter.apply else ():
        image[box] = operations[operation](image[box], jitter.factors[operation])
    return image * 255


def noisy(view, noise):
    view = view.filter(ImageFilter.GaussianBlur(float(noise.radius)))
    view = jittered(view, noise.jitter)
    return view.convert("L").convert("RGB") if noise.grey else view


def in_bytes(image, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return (image * std + mean) * 255


def difference(ours, expected, inside=np.True_):
    """Mean over pixels and channels, of 255."""
    gap = np.abs(ours - np.asarray(expected, np.float32)).mean(-1)
    return gap[np.broadcast_to(inside, gap.shape)].mean()


def frame_of(image, window):
    image = Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    return cropped(image, window, 0, Image.Resampling.BILINEAR)


def test_teacher_views(raw, made):
    zooms, flips = set(), set()
    for batch, drawn, _ in made:
        for number in range(GROUPS * VIEWS):
            frame, window, _ = at(drawn, number)
            view = zoomed(frame_of(raw["target_image"][number // VIEWS], frame), window)
            assert difference(in_bytes(batch["teacher_view"][number]), view) < 1
            zooms.add(float(window.scale))
            flips.add((bool(frame.flip), bool(window.flip)))
        assert not batch["padded"].any()
    assert len(flips) == 4 and len(zooms) > 20


def test_views_warped_back_show_pillows_reference(raw, made):
    """To interpolation error, and the other way round."""
    for batch, drawn, _ in made:
        back, seen = warped_back(batch)
        for number in range(GROUPS * VIEWS):
            image, frame = raw["target_image"][number // VIEWS], at(drawn.frames, number)
            reference = np.array(frame_of(image, frame), np.float32)
            whole = seen[number] > 0.99
            assert whole.mean() > 0.2
            assert difference(255 * back[number], reference, whole) < 5
            view, there = in_bytes(batch["teacher_view"][number]), batch["from_reference"][number]
            assert difference(warp_affine(reference[None], there[None])[0], view) < 5


@pytest.mark.parametrize("entry", [(0, 0), (0, 2), (1, 1), (1, 2)])
def test_with_a_sign_turned_they_do_not(raw, made, entry):
    batch, drawn, _ = made[0]
    turns = np.ones((2, 3), np.float32)
    turns[entry] = -1
    wrong, seen = warped_back(batch | {"to_reference": batch["to_reference"] * turns})
    shifted = np.abs(batch["to_reference"][:, *entry]) > 0.1
    assert shifted.sum() >= 3
    for number in np.flatnonzero(shifted):
        image, frame = raw["target_image"][number // VIEWS], at(drawn.frames, number)
        whole = seen[number] > 0.99
        assert difference(255 * wrong[number], frame_of(image, frame), whole) > 10


def test_student_views(raw, made):
    """Blur and colours as Pillow makes them out of Pillow's own view."""
    jittered_views, grey_views = 0, 0
    for batch, drawn, _ in made:
        for number in range(GROUPS * VIEWS):
            frame, window, noise = at(drawn, number)
            view = zoomed(frame_of(raw["target_image"][number // VIEWS], frame), window)
            expected = noisy(view, noise)
            assert difference(in_bytes(batch["student_view"][number]), expected) < 2, noise
            jittered_views += noise.jitter.apply
            grey_views += noise.grey
    assert jittered_views > 8 and grey_views > 3


def test_source_views(raw, made):
    """Images and labels; the smallest scales leave padding."""
    padded = 0
    for batch, _, drawn in made:
        for row in range(ROWS):
            check_crop(
                raw["source_image"][row], raw["source_label"][row], at(drawn, row),
                batch["source_image"][row], batch["source_label"][row],
            )  # fmt: skip
            padded += (batch["source_label"][row] == 255).any()
    assert 0 < padded < len(made) * ROWS


def check_crop(image, label, window, made_image, made_label, jitter=None):
    shown = Image.new("1", label.shape[::-1], 1)
    inside = np.array(cropped(shown, window, 0, Image.Resampling.NEAREST))
    expected = cropped(Image.fromarray(image), window, 0, Image.Resampling.BILINEAR)
    if jitter is None:
        assert difference(in_bytes(made_image, MEAN, STD), expected, inside) < 1
    assert (made_image[~inside] == 0).all()

    expected = cropped(Image.fromarray(label), window, 255, Image.Resampling.NEAREST)
    assert (made_label == np.array(expected)).mean() >= 0.999
    assert (made_label[~inside] == 255).all()


def test_baseline_views(raw, torchvision_colour):
    crop = {"shape": SHAPE, "size": SIZE, "scale": (0.5, 2.0), "strength": 0.4, "hue": 0.4}
    draw = partial(draw_jittered_crop, **crop)
    batch_in = {**raw, "target_image": raw["source_image"], "target_item": raw["source_item"]}
    del batch_in["target_view"]

    @partial(jax.jit, compiler_options=QUICKLY)
    def make(key):
        batch = views.baseline_views(
            key, batch_in, size=SIZE, scale=crop["scale"], jitter=0.4,
            source_mean=MEAN, source_std=STD,
        )  # fmt: skip
        drawn = [
            jax.vmap(lambda item, domain=domain: draw(views.item_key(key, domain, item)))(
                raw["source_item"]
            )
            for domain in (views.SOURCE, views.TARGET)
        ]
        return batch, drawn

    changed = 0
    for step in STEPS:
        batch, drawn = jax.tree.map(np.array, make(jax.random.key(step)))
        statistics = {"source": (MEAN, STD), "target": (IMAGENET_MEAN, IMAGENET_STD)}
        for (name, (mean, std)), parameters in zip(statistics.items(), drawn, strict=True):
            for row in range(ROWS):
                window, jitter = at(parameters, row)
                image = Image.fromarray(raw["source_image"][row])
                view = cropped(image, window, 0, Image.Resampling.BILINEAR)
                shown = Image.new("1", image.size, 1)
                inside = np.array(cropped(shown, window, 0, Image.Resampling.NEAREST))
                expected = jittered_inside(view, jitter, inside, torchvision_colour)
                ours = in_bytes(batch[f"{name}_image"][row], mean, std)
                assert difference(ours, expected, inside) < (2 if jitter.apply else 1)
                changed += jitter.apply
                if name == "source":
                    check_crop(
                        raw["source_image"][row], raw["source_label"][row], window,
                        batch["source_image"][row], batch["source_label"][row], jitter,
                    )  # fmt: skip
    assert changed > 8
