"""Colour jitter by torchvision's definitions for tensors, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


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
