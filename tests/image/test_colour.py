"""Colour operations agree with Pillow's."""

import colorsys
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dasac_jax.image import colour


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :40] / 5.0
    waves = np.stack([np.sin(x + y), np.sin(x - y), np.cos(2 * x)], -1)
    values = np.clip(120 + 80 * waves + 40 * rng.normal(size=(24, 40, 3)), 0, 255)
    values[:4, :4] = 77  # grey, hue undefined
    values[4:6, :4] = 0
    values[6:8, :4] = 255
    return values.astype(np.uint8)


def unit(image):
    return jnp.asarray(image, jnp.float32) / 255.0


def assert_close(ours, expected, tolerance=2.0):
    """Within 2 of 255 everywhere."""
    assert np.abs(np.array(ours) * 255.0 - np.asarray(expected, np.float32)).max() <= tolerance
    assert ours.min() >= 0.0 and ours.max() <= 1.0


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 2.0])
def test_blends_agree_with_pillow(image, factor):
    source, valid = Image.fromarray(image), jnp.ones(image.shape[:2], bool)
    brightness = colour.adjust_brightness(unit(image), factor)
    assert_close(brightness, ImageEnhance.Brightness(source).enhance(factor))
    contrast = colour.adjust_contrast(unit(image), factor, valid)
    assert_close(contrast, ImageEnhance.Contrast(source).enhance(factor))
    saturation = colour.adjust_saturation(unit(image), factor)
    assert_close(saturation, ImageEnhance.Color(source).enhance(factor))


def test_grey_agrees_with_pillow(image):
    expected = np.array(Image.fromarray(image).convert("L"))[..., None].repeat(3, -1)
    assert_close(colour.grey(unit(image)), expected)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_turns_in_hsv(image, turn):
    expected = np.empty(image.shape, np.float64)
    for index in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[index] / 255.0))
        expected[index] = colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)
    assert_close(colour.adjust_hue(unit(image), turn), expected * 255.0, 0.01)


def test_hue_agrees_with_pillow(image):
    """Pillow keeps hue in 256 steps, so only the average can be close."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(26)  # wraps around
    expected = np.array(Image.fromarray(hsv, "HSV").convert("RGB"), np.float32)
    ours = np.array(colour.adjust_hue(unit(image), 26 / 256)) * 255.0
    assert np.abs(ours - expected).mean() < 2.0


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 2.0])
def test_blends_and_grey_agree_with_torchvision(image, torchvision_colour, factor):
    everywhere = jnp.ones(image.shape[:2], bool)
    ours = {
        "brightness": colour.adjust_brightness(unit(image), factor),
        "contrast": colour.adjust_contrast(unit(image), factor, everywhere),
        "saturation": colour.adjust_saturation(unit(image), factor),
        "grey": colour.grey(unit(image)),
    }
    for name, changed in ours.items():
        assert_close(changed, torchvision_colour[name](image / 255, factor) * 255, 0.1)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_agrees_with_torchvision(image, torchvision_colour, turn):
    expected = torchvision_colour["hue"](image / 255, turn) * 255
    assert_close(colour.adjust_hue(unit(image), turn), expected, 0.01)


def test_jitter_in_every_order_agrees_with_torchvision(image, torchvision_colour):
    names, factors = ("brightness", "contrast", "saturation", "hue"), (1.4, 0.6, 1.3, -0.1)
    run, valid = jax.jit(colour.jitter), jnp.ones(image.shape[:2], bool)
    for order in permutations(range(4)):
        expected = image / 255
        for entry in order:
            expected = torchvision_colour[names[entry]](expected, factors[entry])
        ours = run(unit(image), jnp.array(factors), jnp.array(order), valid)
        assert_close(ours, expected * 255, 0.5)


def test_contrast_takes_its_mean_over_valid_pixels(image):
    valid = np.zeros(image.shape[:2], bool)
    valid[:, :20] = True
    expected = colour.adjust_contrast(unit(image[:, :20]), 0.5, jnp.ones((24, 20), bool))
    ours = colour.adjust_contrast(unit(image), 0.5, jnp.array(valid))
    np.testing.assert_allclose(ours[:, :20], expected, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_jitter_applies_the_operations_in_order(image, order):
    factors, valid = jnp.array([1.4, 0.6, 1.3, 0.08]), jnp.ones(image.shape[:2], bool)
    operations = (
        lambda x: colour.adjust_brightness(x, 1.4),
        lambda x: colour.adjust_contrast(x, 0.6, valid),
        lambda x: colour.adjust_saturation(x, 1.3),
        lambda x: colour.adjust_hue(x, 0.08),
    )
    expected = unit(image)
    for entry in order:
        expected = operations[entry](expected)
    ours = jax.jit(colour.jitter)(unit(image), factors, jnp.array(order), valid)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
