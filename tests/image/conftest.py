"""Images, batches and reference implementations that several tests of this folder need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def _smooth(height, width, phase=0.0):
    """(height, width, 3) in 0..1, slowly varying and with no symmetry."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height * 3.0, (x + 0.5) / width * 4.0
    waves = [np.sin(x + 0.7 * y + phase), np.sin(1.3 * x - y + 1 + phase), np.sin(0.4 * x * y)]
    return (0.5 + 0.45 * np.stack(waves, -1)).astype(np.float32)


def _uint8(image):
    return np.round(image * 255).astype(np.uint8)


def _warp(image, matrix):
    """Bilinear sampling of (H, W, C) by a 2x3 matrix from output to input coordinates in -1..1,
    which mark the outer edges of the border pixels; 0 outside."""
    H, W, _ = image.shape
    y, x = np.mgrid[:H, :W].astype(np.float64)
    grid = np.stack([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1, np.ones((H, W))], -1)
    u, v = np.moveaxis(grid @ np.asarray(matrix, np.float64).T, -1, 0)
    column, row = ((u + 1) * W - 1) / 2, ((v + 1) * H - 1) / 2
    padded = np.pad(np.asarray(image, np.float64), ((1, 1), (1, 1), (0, 0)))
    total = np.zeros(image.shape)
    for i in (0, 1):
        for j in (0, 1):
            r, c = np.floor(row) + i, np.floor(column) + j
            weight = (1 - abs(row - r)) * (1 - abs(column - c))
            r, c = np.clip(r, -1, H).astype(int) + 1, np.clip(c, -1, W).astype(int) + 1
            total += weight[..., None] * padded[r, c]
    return total


def _eroded(mask, pixels=2):
    """The mask without a rim, the image's border included."""
    H, W = mask.shape
    padded = np.pad(mask, pixels)
    shifts = range(2 * pixels + 1)
    return np.all([padded[i : i + H, j : j + W] for i in shifts for j in shifts], axis=0)


def _target_batch(groups, num_views=4, shape=(40, 80)):
    return {
        "target_image": np.stack([_uint8(_smooth(*shape, phase=i)) for i in range(groups)]),
        "target_view": np.arange(groups * num_views, dtype=np.int32),
    }


def _source_batch(rows, shape=(48, 80)):
    rng = np.random.default_rng(0)
    return {
        "source_image": np.stack([_uint8(_smooth(*shape, phase=0.5 * i)) for i in range(rows)]),
        "source_label": rng.integers(0, 19, (rows, *shape)).astype(np.uint8),
        "source_item": np.arange(rows, dtype=np.int32),
    }


@pytest.fixture(scope="session")
def smooth() -> Callable:
    """smooth(height, width): an image (height, width, 3) in 0..1 without symmetry."""
    return _smooth


@pytest.fixture(scope="session")
def warp() -> Callable:
    """warp(image, matrix): bilinear sampling as `warp_affine` defines it, in numpy."""
    return _warp


@pytest.fixture(scope="session")
def eroded() -> Callable:
    """eroded(mask): the mask (H, W) without a rim of two pixels."""
    return _eroded


@pytest.fixture(scope="session")
def source_batch() -> Callable:
    """source_batch(rows): the source's part of a decoded batch."""
    return _source_batch


@pytest.fixture(scope="session")
def target_batch() -> Callable:
    """target_batch(groups): the target's part of a decoded batch, four views of each image."""
    return _target_batch


def _grey(image):
    return (image @ np.array([0.2989, 0.587, 0.114]))[..., None].repeat(3, -1)


def _blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 1)


def _to_hsv(image):
    red, green, blue = np.moveaxis(image, -1, 0)
    value, chroma = image.max(-1), np.ptp(image, -1)
    some = np.where(chroma > 0, chroma, 1)
    sector = np.select(
        [value == red, value == green],
        [(green - blue) / some, 2 + (blue - red) / some],
        4 + (red - green) / some,
    )
    return sector / 6 % 1, chroma / np.where(chroma > 0, value, 1), value


def _from_hsv(hue, saturation, value):
    sector = np.floor(hue * 6)
    part = hue * 6 - sector
    low = value * (1 - saturation)
    falling, rising = value * (1 - saturation * part), value * (1 - saturation * (1 - part))
    channels = [
        (value, rising, low), (falling, value, low), (low, value, rising),
        (low, falling, value), (rising, low, value), (value, low, falling),
    ]  # fmt: skip
    chosen = (sector % 6)[..., None] == np.arange(6)
    return sum(chosen[..., i : i + 1] * np.stack(channels[i], -1) for i in range(6))


def _turn(image, turn):
    hue, saturation, value = _to_hsv(image)
    return _from_hsv((hue + turn) % 1, saturation, value)


@pytest.fixture(scope="session")
def torchvision_colour() -> dict[str, Callable]:
    """name: function of an image (H, W, 3) float64 in [0, 1], and of a factor."""
    return {
        "brightness": lambda image, factor: _blend(image, 0, factor),
        "contrast": lambda image, factor: _blend(image, _grey(image)[..., 0].mean(), factor),
        "saturation": lambda image, factor: _blend(image, _grey(image), factor),
        "hue": _turn,
        "grey": lambda image, _: _grey(image),
    }
