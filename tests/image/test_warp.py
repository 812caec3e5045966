"""The separable warp against hand-made cases and a plain four-tap sampler in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import warp

warp_affine = jax.jit(warp.warp_affine)
warp_ones = jax.jit(warp.warp_ones, static_argnums=1)


def matrix(scale_x=1.0, shift_x=0.0, scale_y=1.0, shift_y=0.0):
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]], np.float32)


def random_matrices(random, count):
    """Flips, zooms in and out, and shifts that leave the frame on either side."""
    flips, shifts = random.choice([-1, 1], count), random.uniform(-0.7, 0.7, (count, 2))
    scales = random.uniform(0.4, 1.8, count)
    views = zip(flips, scales, shifts, strict=True)
    return np.stack([matrix(f * s, dx, s, dy) for f, s, (dy, dx) in views])


def sampled(image, affine):
    """One pixel at a time, four taps each, in float64."""
    height, width, channels = image.shape
    output = np.zeros((height, width, channels))
    for i, j in np.ndindex(height, width):
        base = np.array([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1])
        x, y = ((affine @ base + 1) * (width, height) - 1) / 2
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < height and 0 <= column < width:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    output[i, j] += weight * image[row, column]
    return output


def test_identity_and_flip_are_exact():
    images = np.random.default_rng(0).random((2, 5, 8, 3), np.float32)
    warped = warp_affine(images, np.stack([matrix(), matrix(scale_x=-1)]))
    np.testing.assert_array_equal(warped[0], images[0])
    np.testing.assert_array_equal(warped[1], images[1, :, ::-1])


def test_shift_by_pixels_brings_zeros_in():
    image = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    right = warp_affine(image, matrix(shift_x=2 / 4)[None])[0, ..., 0]  # one pixel is 2 / width
    np.testing.assert_allclose(right[:, :3], image[0, :, 1:, 0], rtol=1e-6)
    np.testing.assert_array_equal(right[:, 3], 0)
    down = warp_affine(image, matrix(shift_y=-2 / 3)[None])[0, ..., 0]
    np.testing.assert_allclose(down[1:], image[0, :2, :, 0], rtol=1e-6)
    np.testing.assert_allclose(down[0], 0, atol=1e-5)


def test_half_a_pixel_averages_neighbours_and_fades_at_the_border():
    image = np.array([2, 4, 8, 6], np.float32).reshape(1, 1, 4, 1)
    warped = warp_affine(image, matrix(shift_x=1 / 4)[None])
    np.testing.assert_allclose(warped.ravel(), [3, 6, 7, 3])


def test_matches_plain_sampling():
    random = np.random.default_rng(1)
    images = random.random((6, 9, 14, 2), np.float32)
    matrices = random_matrices(random, 6)
    expected = np.stack([sampled(*pair) for pair in zip(images, matrices, strict=True)])
    np.testing.assert_allclose(warp_affine(images, matrices), expected, atol=3e-6)


def test_warped_ones_are_the_warp_of_ones():
    matrices = random_matrices(np.random.default_rng(2), 5)
    ones = warp_affine(np.ones((5, 7, 12, 1), np.float32), matrices)[..., 0]
    assert 0 < float((ones < 1).mean()) < 1
    np.testing.assert_allclose(warp_ones(matrices, (7, 12)), ones, atol=1e-6)


def test_far_outside_is_zero():
    images = np.ones((1, 4, 4, 1), np.float32)
    for far in (3.0, -3.0, 1e6, -1e6):
        np.testing.assert_array_equal(warp_affine(images, matrix(shift_x=far)[None]), 0)


def test_keeps_the_type():
    images = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    assert warp_affine(images, matrix()[None]).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("images", "matrices"), [((4, 4, 1), (1, 2, 3)), ((2, 4, 4, 1), (1, 2, 3))]
)
def test_refuses_mismatched_shapes(images, matrices):
    with pytest.raises(ValueError, match=r"need \(B, H, W, C\)"):
        warp_affine(np.zeros(images, np.float32), np.zeros(matrices, np.float32))
