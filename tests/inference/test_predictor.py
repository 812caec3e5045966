"""Predictions of networks that can be worked out by hand."""

import gc
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.image.normalise import normalise
from dasac_jax.inference import predictor
from dasac_jax.inference.predictor import Options, window_starts
from dasac_jax.runtime import compiled_sizes, garbage

CLASSES = 3


class Probe(nn.Module):
    """Logits from a pixel's red, the mean over the input, the column and the input's height."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        weight = {
            name: self.param(name, nn.initializers.zeros, (CLASSES,))
            for name in ("pixel", "mean", "column", "height")
        }
        columns = jnp.arange(x.shape[2], dtype=jnp.float32)[:, None] / 10
        return (
            x[..., :1] * weight["pixel"]
            + x.mean((1, 2, 3), keepdims=True) * weight["mean"]
            + columns * weight["column"]
            + x.shape[1] / 100 * weight["height"]
        )


MODEL = Probe()


def weights(**given):
    return {
        "params": {
            name: jnp.array(given.get(name, (0.0, 0, 0)), jnp.float32)
            for name in ("pixel", "mean", "column", "height")
        }
    }


def random_images(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def predicted(variables, images, **options):
    return predictor.create(MODEL, variables, Options(probabilities=True, **options))(images)()


def softmax(logits):
    return np.asarray(jax.nn.softmax(jnp.asarray(logits)))


def by_hand(variables, image):
    """Probabilities (H, W, C) of one whole image."""
    return softmax(MODEL.apply(variables, normalise(image[None]))[0])


ALL = weights(pixel=(1, 0, -1), mean=(0, 3, 0), column=(0.2, 0, -0.1), height=(0, 0, 1))


def test_whole_images_as_they_are_scored():
    images = random_images(3, 40, 56)
    found = predicted(ALL, images)
    expected = np.stack([by_hand(ALL, image) for image in images])
    np.testing.assert_array_equal(found.labels, expected.argmax(-1))
    np.testing.assert_allclose(found.confidence, expected.max(-1), atol=1e-6)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)
    assert (found.labels.dtype, found.confidence.dtype) == (np.uint8, np.float32)
    assert found.probabilities.dtype == np.float16
    devices = jax.local_device_count()
    dealt = np.repeat(images[:1, None], devices, axis=0)
    labels, confidence = scoring.predictor(MODEL)(ALL, dealt)
    np.testing.assert_array_equal(found.labels[0], labels[0, 0])
    np.testing.assert_array_equal(found.confidence[0], confidence[0, 0])


@pytest.mark.parametrize("window", [None, (32, 48)])
def test_a_size_is_compiled_once_and_weights_are_sent_once(window):
    compiled = []
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name == event else None
    )
    with jax.transfer_guard_host_to_device("disallow"):  # results come back without being asked to
        predict = predictor.create(MODEL, jax.tree.map(np.asarray, ALL), Options(window=window))
        predict(random_images(1, 40, 56))()
        compiled.clear()
        for height in (41, 40, 41):
            predict(random_images(8, height, 56))()
    assert len(compiled) == (1 if window is None else 0)


def test_no_probabilities_unless_asked_for():
    assert predictor.create(MODEL, ALL, Options())(random_images(1, 40, 40))()[2] is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (40, 7)])
def test_small_images_are_extended_and_cut_back(height, width):
    image = random_images(1, height, width)
    bigger = np.pad(
        image, ((0, 0), (0, max(0, 32 - height)), (0, max(0, 32 - width)), (0, 0)), mode="edge"
    )
    found = predicted(ALL, image)
    assert found.labels.shape == (1, height, width)
    expected = by_hand(ALL, bigger[0])[:height, :width]
    np.testing.assert_allclose(found.confidence[0], expected.max(-1), atol=1e-6)


def test_flip_averages_with_the_mirror_image():
    variables = weights(pixel=(1, 0, -1), column=(0.5, 0, -0.5))
    image = random_images(1, 32, 48)
    mirrored = by_hand(variables, image[0, :, ::-1])[:, ::-1]
    expected = (by_hand(variables, image[0]) + mirrored) / 2
    assert np.abs(expected - by_hand(variables, image[0])).max() > 0.1
    found = predicted(variables, image, flip=True)
    np.testing.assert_allclose(found.confidence[0], expected.max(-1), atol=1e-6)
    np.testing.assert_array_equal(found.labels[0], expected.argmax(-1))
    windowed = predicted(variables, image, flip=True, window=(32, 48))
    np.testing.assert_allclose(windowed.confidence[0], expected.max(-1), atol=1e-6)


@pytest.mark.parametrize("window", [None, (64, 80)])
def test_scales_are_averaged(window):
    """The network sees its input's height alone: 64, 32 and 96 pixels."""
    variables = weights(height=(4, 0, -2))
    per_height = [softmax(np.array([4, 0, -2]) * h / 100) for h in (64, 32, 96)]
    if window:  # what is smaller than a window is extended to one, what is larger is cut
        per_height = [softmax(np.array([4, 0, -2]) * 0.64)] * 3
    found = predicted(variables, random_images(1, 64, 80), scales=(1, 0.5, 1.5), window=window)
    assert found.labels.shape == (1, 64, 80)
    np.testing.assert_allclose(found.confidence, np.mean(per_height, 0).max(), atol=1e-6)


def test_scaled_images_are_those_that_pillow_makes():
    variables = weights(mean=(3, 0, -3), pixel=(0.5, 0, -0.5))
    image = random_images(1, 64, 80)
    small = np.asarray(Image.fromarray(image[0]).resize((40, 32), Image.Resampling.BILINEAR))
    expected = by_hand(variables, small)
    whole = predicted(variables, image, scales=(0.5,))
    cut = predicted(variables, image, scales=(0.5,), window=(32, 40))
    # The corners are aligned, so that they keep their values; rounding differs by a level.
    for found in (whole, cut):
        corners = found.probabilities[0][[0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(corners, expected[[0, 0, -1, -1], [0, -1, 0, -1]], atol=0.01)
    np.testing.assert_allclose(whole.confidence, cut.confidence, atol=0.05)
    assert np.abs(whole.probabilities - predicted(variables, image).probabilities).max() > 0.1


def test_windows_that_cover_an_image_once_are_its_crops():
    variables = weights(pixel=(1, 0, -1), mean=(0, 30, 0), column=(0.5, 0, 0))
    image = random_images(1, 64, 96)
    found = predicted(variables, image, window=(32, 48), overlap=0.0)
    for top in (0, 32):
        for left in (0, 48):
            expected = by_hand(variables, image[0, top : top + 32, left : left + 48])
            place = np.s_[0, top : top + 32, left : left + 48]
            np.testing.assert_allclose(found.confidence[place], expected.max(-1), atol=1e-6)
            np.testing.assert_array_equal(found.labels[place], expected.argmax(-1))
    whole = by_hand(variables, image[0])
    assert np.abs(found.confidence[0] - whole.max(-1)).max() > 0.1


def test_overlapping_windows_are_averaged():
    variables = weights(mean=(0, 30, 0), column=(0.5, 0, 0))
    image = random_images(1, 33, 80)
    total, seen = np.zeros((33, 80, CLASSES)), np.zeros((33, 80, 1))
    for top in (0, 1):
        for left in (0, 32):
            place = np.s_[top : top + 32, left : left + 48]
            total[place] += by_hand(variables, image[0][place])
            seen[place] += 1
    found = predicted(variables, image, window=(32, 48), overlap=0.25, batch=2)
    np.testing.assert_allclose(found.confidence[0], (total / seen).max(-1), atol=1e-6)


def test_a_window_larger_than_the_image():
    image = random_images(1, 30, 50)
    bigger = np.pad(image, ((0, 0), (0, 34), (0, 14), (0, 0)), mode="edge")
    found = predicted(ALL, image, window=(64, 64))
    expected = by_hand(ALL, bigger[0])[:30, :50]
    np.testing.assert_allclose(found.confidence[0], expected.max(-1), atol=1e-6)


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts"),
    [
        (10, 10, 0.5, [0]),
        (7, 10, 0.5, [0]),
        (20, 10, 0.0, [0, 10]),
        (11, 10, 0.0, [0, 1]),
        (20, 10, 0.5, [0, 5, 10]),
        (2048, 1024, 0.25, [0, 512, 1024]),
        (100, 40, 0.25, [0, 30, 60]),
    ],
)
def test_where_windows_begin(length, window, overlap, starts):
    assert window_starts(length, window, overlap) == starts


def test_windows_reach_every_pixel_and_overlap_enough():
    rng = np.random.default_rng(0)
    for _ in range(300):
        length, window = int(rng.integers(1, 300)), int(rng.integers(32, 120))
        overlap = float(rng.uniform(0, 0.9))
        starts = window_starts(length, window, overlap)
        assert starts[0] == 0 and starts[-1] == max(0, length - window)
        # Rounding to whole pixels may cost one.
        assert all(b - a <= window * (1 - overlap) + 1 for a, b in itertools.pairwise(starts))


def test_programs_of_many_sizes_do_not_pile_up(monkeypatch):
    garbage.collect_seldom()  # what is here by now takes long to look through each time
    monkeypatch.setattr(compiled_sizes, "KEPT", 2)
    images = [random_images(1, height, 40) for height in (32, 33, 34, 35, 32)]
    start = predictor.create(MODEL, ALL, Options())
    found, alive = [], []
    for image in images:
        found.append(start(image)().confidence[0])
        gc.collect()
        alive.append(len(jax.devices()[0].client.live_executables()))
    assert alive[1] > alive[0]
    assert alive[2:] == [alive[2], alive[2] + 1, alive[2]]
    for image, confidence in zip(images, found, strict=True):
        np.testing.assert_allclose(confidence, by_hand(ALL, image[0]).max(-1), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, float("nan"))}, "scales"),
        ({"scales": (0.0,)}, "scales"),
        ({"window": (16, 64)}, "window"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": -0.1}, "overlap"),
        ({"batch": 0}, "batch"),
    ],
)
def test_impossible_options(options, word):
    with pytest.raises(UserError, match=word):
        Options(**options)
