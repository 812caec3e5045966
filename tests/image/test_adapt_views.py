"""The adaptation's batches: shapes, geometry, padding, noise, and independence of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dasac_jax.image import views
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise, source_statistics

SIZE = (32, 64)
MEAN, STD = source_statistics("gta5")
RANGES = {"source_scale": (0.5, 1.0), "target_scale": (1.0, 1.1), "zoom": (0.5, 1.0)}
TARGET = {"size": SIZE, "num_views": 4, "jitter": 0.4, "hue": 0.1}
SETTINGS = {**TARGET, "source_mean": MEAN, "source_std": STD}


@pytest.fixture(scope="module")
def make_adapt():
    """One compiled program for all tests, its ranges traced."""

    @jax.jit
    def make(key, raw, ranges):
        return views.adapt_views(key, raw, **SETTINGS, **ranges)

    def run(key, raw, **ranges):
        return jax.tree.map(np.array, make(jax.random.key(key), raw, {**RANGES, **ranges}))

    return run


@pytest.fixture(scope="module")
def adapt_batch(make_adapt, source_batch, target_batch):
    raw = {**source_batch(4), **target_batch(2)}
    return raw, make_adapt(5, raw)


def test_adapt_views_have_the_promised_shapes(adapt_batch):
    _, batch = adapt_batch
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "source_image": ((4, *SIZE, 3), "float32"),
        "source_label": ((4, *SIZE), "int32"),
        "student_view": ((8, *SIZE, 3), "float32"),
        "teacher_view": ((8, *SIZE, 3), "float32"),
        "padded": ((8, *SIZE), "bool"),
        "to_reference": ((8, 2, 3), "float32"),
        "from_reference": ((8, 2, 3), "float32"),
    }


def test_all_views_of_a_group_warp_back_to_one_frame(adapt_batch, warp, eroded):
    _, batch = adapt_batch
    assert len(np.unique(batch["to_reference"], axis=0)) > 4
    back = [warp(v, m) for v, m in zip(batch["teacher_view"], batch["to_reference"], strict=True)]
    ones = np.ones((*SIZE, 1))
    for view in range(8):
        frame = back[view // 4 * 4]  # view 0 is the whole frame, flipped or not
        seen = eroded(warp(ones, batch["to_reference"][view])[..., 0] > 0.99)
        assert np.abs(back[view] - frame)[seen].max() < 0.15  # of about 4 in normalised units
    assert np.abs(back[0] - back[4]).max() > 0.5


def test_view_zero_shows_the_resized_image(make_adapt, adapt_batch):
    """With no scaling the frame is the image as Pillow resizes it, flipped or not."""
    raw, _ = adapt_batch
    batch = make_adapt(5, raw, target_scale=(1.0, 1.0))
    for group in range(2):
        image = Image.fromarray(raw["target_image"][group]).resize(SIZE[::-1], Image.BILINEAR)
        expected = np.array(normalise(jnp.array(np.array(image))))
        ours = batch["teacher_view"][4 * group]
        both = [np.abs(ours - x).mean() for x in (expected, expected[:, ::-1])]
        assert min(both) < 1 / 255 / 0.22


def test_students_differ_from_teachers_by_colour_and_blur_only(adapt_batch):
    _, batch = adapt_batch
    assert not batch["padded"].any()
    for student, teacher in zip(batch["student_view"], batch["teacher_view"], strict=True):
        assert np.abs(student - teacher).max() > 1e-3

        def luma(x):
            return (x * IMAGENET_STD + IMAGENET_MEAN) @ [0.299, 0.587, 0.114]

        correlation = np.corrcoef(luma(student).ravel(), luma(teacher).ravel())[0, 1]
        assert correlation > 0.6


def test_zooming_out_pads(make_adapt, adapt_batch, warp):
    raw, _ = adapt_batch
    batch = make_adapt(2, raw, zoom=(1.3, 1.6))
    padded = batch["padded"]
    shares = padded.mean((1, 2)).reshape(2, 4)
    assert (shares[:, 0] == 0).all()
    assert (shares[:, 1:] > 0.3).all() and (shares[:, 1:] < 0.65).all()
    for name in ("student_view", "teacher_view"):
        assert (batch[name][padded] == 0).all()
        assert (np.abs(batch[name][~padded]).max(-1) > 0.01).mean() > 0.99
    for view in (1, 2, 3, 5, 6, 7):  # the whole frame is inside the view
        seen = warp(~padded[view][..., None], batch["to_reference"][view])[..., 0]
        assert (seen > 0.99).mean() > 0.9


def test_padding_of_the_frame_is_padding_of_its_views(make_adapt, adapt_batch):
    raw, _ = adapt_batch
    batch = make_adapt(2, raw, zoom=(1.0, 1.0), target_scale=(0.5, 0.5))
    for padded in (batch["padded"][:4], batch["padded"][4:]):
        assert (padded.mean((1, 2)) == 0.75).all()
        for view in padded[1:]:
            assert (view == padded[0]).all() or (view == padded[0][:, ::-1]).all()


def test_source_views_move_image_and_label_together(make_adapt, adapt_batch):
    """The image's red channel carries the label, so that both can be compared pixel by pixel."""
    blocks = np.arange(12).reshape(3, 4).repeat(16, 0).repeat(20, 1).astype(np.uint8)
    image = np.stack([blocks * 20, blocks, blocks], -1)
    raw = {
        **adapt_batch[0],
        "source_image": np.stack([image] * 4),
        "source_label": np.stack([blocks] * 4),
    }
    batch = make_adapt(1, raw)
    red = (batch["source_image"][..., 0] * STD[0] + MEAN[0]) * 255 / 20
    labels = batch["source_label"]
    inside = labels != 255
    assert 0 < (~inside).mean() < 0.5  # scales near 0.5 leave 24x40 pixels for 32x64
    assert (batch["source_image"][~inside] == 0).all()
    assert (np.abs(red - labels)[inside] < 0.5).mean() > 0.9
    assert len({label.tobytes() for label in labels}) == 4


def split(batch, devices, num_views=4):
    """The same global batch as each device sees it."""
    share = len(batch["source_item"]) // devices
    views_here = len(batch["target_view"]) // devices
    parts = []
    for device in range(devices):
        part = {
            name: value[device * share : (device + 1) * share]
            for name, value in batch.items()
            if name.startswith("source")
        }
        numbers = batch["target_view"][device * views_here : (device + 1) * views_here]
        groups = np.unique(numbers // num_views)
        parts.append(
            {**part, "target_view": numbers, "target_image": batch["target_image"][groups]}
        )
    return {name: np.stack([part[name] for part in parts]) for name in batch}


def test_views_do_not_depend_on_the_device_count(adapt_batch):
    """On 4 devices each holds half a group."""
    raw, expected = adapt_batch
    devices = 4
    mapped = jax.pmap(
        partial(views.adapt_views, **SETTINGS, **RANGES),
        in_axes=(None, 0),
        devices=jax.devices()[:devices],
    )
    made = mapped(jax.random.key(5), split(raw, devices))
    for name, value in made.items():
        value = np.array(value).reshape(expected[name].shape)
        if value.dtype == np.float32:
            np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_one_view_per_device_looks_as_in_the_whole_batch(adapt_batch):
    raw, expected = adapt_batch
    ranges = {name: RANGES[name] for name in ("target_scale", "zoom")}
    make = jax.jit(partial(views.target_views, **TARGET, **ranges))
    for view in (0, 5):
        image, number = raw["target_image"][view // 4], raw["target_view"][view]
        one = make(jax.random.key(5), image[None], number[None])
        for name, value in one.items():
            np.testing.assert_allclose(value[0], expected[name][view], atol=2e-5, err_msg=name)
