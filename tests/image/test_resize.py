"""Resizing, cropping, flipping and zooming agree with Pillow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dasac_jax.image.resize import (
    bilinear_matrix,
    crop_axis,
    gather_nearest,
    inside_mask,
    resample,
    resize_image,
    zoom_axis,
)


def picture(height, width, seed=0):
    """Shapes and noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 7.0
    waves = np.stack([np.sin(x + y), np.sin(x - 2 * y), np.sin(3 * x)], -1)
    noise = rng.normal(size=(height, width, 3))
    return np.clip(128 + 70 * waves + 25 * noise, 0, 255).astype(np.uint8)


def label_map(height, width, seed=1):
    return np.random.default_rng(seed).integers(0, 19, (height, width)).astype(np.uint8)


def crop_by_pillow(array, length, offset, size, flip, method, fill):
    """Resize, crop with padding, flip: what `crop_axis` does, in three steps."""
    image = Image.fromarray(array).resize((length[1], length[0]), method)
    top, left = offset
    canvas = Image.new(image.mode, (size[1], size[0]), fill)
    canvas.paste(image, (-left, -top))
    return np.array(canvas.transpose(Image.FLIP_LEFT_RIGHT) if flip else canvas)


@partial(jax.jit, static_argnums=2)
def crop(image, label, size, length, offset, flip):
    flips = (False, flip)
    (rows, label_rows), (columns, label_columns) = [
        crop_axis(size[a], label.shape[a], length[a], offset[a], flips[a]) for a in range(2)
    ]
    return resample(image, rows, columns), *gather_nearest(label, label_rows, label_columns, 255)


@jax.jit
def zoom(image, length, offset, flip):
    flips = (False, flip)
    (rows, in_rows), (columns, in_columns) = [
        zoom_axis(image.shape[a], length[a], offset[a], flips[a]) for a in range(2)
    ]
    inside = inside_mask(in_rows, image.shape[0])[:, None] & inside_mask(in_columns, image.shape[1])
    return resample(image, rows, columns), inside


@pytest.mark.parametrize("size", [(20, 31), (40, 60), (57, 93), (96, 144)])
def test_resize_image_agrees_with_pillow(size):
    image = picture(40, 60)
    expected = np.array(Image.fromarray(image).resize(size[::-1], Image.BILINEAR), np.float32)
    ours = np.array(jax.jit(resize_image, static_argnums=1)(image, size))
    assert ours.shape == (*size, 3)
    assert np.abs(ours - expected).max() < 1.3  # Pillow rounds twice
    assert np.abs(ours - expected).mean() < 0.5


CROPS = [
    ((47, 81), (0, 0), True),  # no scaling
    ((24, 40), (0, 3), False),
    ((33, 55), (9, 11), True),
    ((91, 152), (40, 70), True),
    ((46, 80), (20, 44), False),
]


@pytest.mark.parametrize(("length", "offset", "flip"), CROPS)
def test_crop_agrees_with_pillow(length, offset, flip):
    size = (22, 34)
    image, label = picture(47, 81), label_map(47, 81)
    ours, labels, inside = map(np.array, crop(image, label, size, length, offset, flip))
    expected = crop_by_pillow(image, length, offset, size, flip, Image.BILINEAR, (0, 0, 0))
    assert np.abs(ours - expected).mean() < 0.5
    assert np.abs(ours - expected).max() < 1.3

    expected = crop_by_pillow(label, length, offset, size, flip, Image.NEAREST, 255)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
    assert inside.all()


@pytest.mark.parametrize("flip", [False, True])
def test_crop_larger_than_the_image_is_padded(flip):
    """The image lies 5 rows down and 7 columns right in the crop, and padding surrounds it."""
    size, length, offset = (40, 60), (24, 40), (-5, -7)
    image, label = picture(47, 81), label_map(47, 81)
    ours, labels, inside = map(np.array, crop(image, label, size, length, offset, flip))
    expected = crop_by_pillow(label, length, offset, size, flip, Image.NEAREST, 255)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(inside, expected != 255)
    assert inside.sum() == 24 * 40

    expected = crop_by_pillow(image, length, offset, size, flip, Image.BILINEAR, (0, 0, 0))
    assert np.abs(ours - expected)[inside].max() < 1.3


@pytest.mark.parametrize("length", [317, 641, 787, 1399, 2047])
def test_nearest_indices_agree_with_pillow_at_full_size(length):
    size = 1052
    ramp = np.arange(size, dtype=np.int32)[None].repeat(2, 0)
    expected = np.array(Image.fromarray(ramp, "I").resize((length, 2), Image.NEAREST))[0]
    _, nearest = jax.jit(crop_axis, static_argnums=(0, 1))(length, size, length, 0, False)
    # Between two pixels Pillow's choice is the rounding error of a running sum.
    clear = (2 * np.arange(length) + 1) * size % (2 * length) != 0
    assert clear.sum() >= 0.99 * length
    np.testing.assert_array_equal(np.array(nearest)[clear], expected[clear])


@pytest.mark.parametrize(
    ("length", "offset", "flip"), [((1052, 1914), (540, 3), True), ((561, 1021), (20, -2), False)]
)
def test_crop_at_full_size_agrees_with_pillow(length, offset, flip):
    """GTA5's size and the recipes' crop, at the ends of the range of scales."""
    shape, size = (1052, 1914), (512, 1024)
    image, label = picture(*shape), label_map(*shape)
    ours, labels, inside = map(np.array, crop(image, label, size, length, offset, flip))
    expected = crop_by_pillow(image, length, offset, size, flip, Image.BILINEAR, (0, 0, 0))
    assert np.abs(ours - expected)[inside].mean() < 0.5

    expected = crop_by_pillow(label, length, offset, size, flip, Image.NEAREST, 255)
    np.testing.assert_array_equal(inside, expected != 255)
    clear = inside.copy()
    for axis, flipped in enumerate((False, flip)):
        i = np.arange(size[axis])[:: -1 if flipped else 1] + offset[axis]
        tie = (2 * i + 1) * shape[axis] % (2 * length[axis]) == 0  # between two pixels
        clear &= ~(tie[:, None] if axis == 0 else tie)
    assert clear.mean() > 0.98 * inside.mean()
    assert (labels == expected)[clear].mean() >= 0.999


ZOOMS = [
    ((40, 64), (0, 0), True),
    ((20, 32), (20, 0), False),
    ((27, 43), (4, 19), True),
    ((39, 63), (1, 0), True),
]


@pytest.mark.parametrize(("length", "offset", "flip"), ZOOMS)
def test_zoom_agrees_with_pillow(length, offset, flip):
    size = (40, 64)
    image = picture(*size)
    ours, inside = zoom(image, length, offset, flip)
    source = Image.fromarray(image)
    source = source.transpose(Image.FLIP_LEFT_RIGHT) if flip else source
    top, left = offset
    window = source.crop((left, top, left + length[1], top + length[0]))
    expected = np.array(window.resize(size[::-1], Image.BILINEAR), np.float32)
    assert np.abs(np.array(ours) - expected).max() < 1.3
    assert np.abs(np.array(ours) - expected).mean() < 0.5
    assert inside.all()


@pytest.mark.parametrize("flip", [False, True])
def test_zooming_out_places_the_image_in_a_larger_canvas(flip):
    size, length, offset = (40, 64), (58, 90), (-3, -20)
    image = picture(*size)
    ours, inside = zoom(image, length, offset, flip)
    frame = image[:, ::-1] if flip else image
    canvas = np.zeros((*length, 3), np.uint8)
    canvas[3:43, 20:84] = frame
    shown = np.zeros(length, np.uint8)
    shown[3:43, 20:84] = 1
    expected = np.array(Image.fromarray(canvas).resize(size[::-1], Image.BILINEAR), np.float32)
    nearest = np.array(Image.fromarray(shown).resize(size[::-1], Image.NEAREST)) == 1
    # Away from the image's border no padding is mixed in.
    mixed = Image.fromarray(shown * 255).resize(size[::-1], Image.BILINEAR)
    whole = np.array(mixed) == 255

    np.testing.assert_array_equal(np.array(inside), nearest)
    assert whole.sum() > 900
    assert np.abs(np.array(ours) - expected)[whole].max() < 1.3


def test_both_orders_of_the_products_agree():
    """`resample` starts with the axis that leaves less work; tall and wide images differ in it."""
    rng = np.random.default_rng(0)
    for (h, w), (H, W) in [((30, 8), (5, 9)), ((8, 30), (9, 5))]:
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        rows, columns = rng.random((H, h), np.float32), rng.random((W, w), np.float32)
        expected = np.einsum("Hh,hwc,Ww->HWc", rows, image.astype(np.float64), columns)
        ours = resample(jnp.array(image), jnp.array(rows), jnp.array(columns))
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_rows_of_a_matrix_sum_to_one_even_outside_the_image():
    matrix = bilinear_matrix(jnp.array([-30.0, 0.2, 5.0, 9.9, 40.0]), 10, 2.7)
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-6)
    assert matrix[0].argmax() == 0 and matrix[-1].argmax() == 9
