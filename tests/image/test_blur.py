"""The blur is a Gaussian, and Pillow's to within its approximation by boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from dasac_jax.image.blur import gaussian_blur


def picture():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.5, 2.0])
def test_agrees_with_pillow(radius):
    image = picture()
    expected = np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)), np.float32)
    ours = np.array(jax.jit(gaussian_blur)(jnp.asarray(image, jnp.float32), radius))
    assert np.abs(ours - expected).mean() < 2.0


@pytest.mark.parametrize("radius", [0.7, 2.0])
def test_a_point_becomes_a_gaussian(radius):
    image = np.zeros((33, 41, 2), np.float32)
    image[16, 20, 1] = 1.0
    ours = np.array(gaussian_blur(jnp.array(image), radius))
    y, x = np.mgrid[-16:17, -20:21]
    expected = np.exp(-(x**2 + y**2) / (2 * radius**2))
    np.testing.assert_allclose(ours[..., 1], expected / expected.sum(), atol=1e-4)
    assert (ours[..., 0] == 0).all()


def test_border_pixels_repeat():
    flat = jnp.full((20, 24, 3), 0.3)
    np.testing.assert_allclose(gaussian_blur(flat, 2.0), flat, rtol=1e-5)
