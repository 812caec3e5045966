"""The random parameters of a view, drawn from a random key.

All numbers of an item come from one call of the random generator, because each further call would
add to the time of compilation.
"""

from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLUR_RADIUS = (0.1, 2.0)  # range in pixels
JITTER_RATE = 0.5  # probability that a view's colours are jittered
GREY_RATE = 0.2  # probability that a view becomes grey
ORDERS = tuple(permutations(range(4)))  # of the jitter's four operations


class Window(NamedTuple):
    """Geometry of one view; rows first, columns second."""

    scale: jax.Array  # () float32, as drawn
    lengths: jax.Array  # (2,) int32 pixels: size of the scaled image, or of the zoom window
    offsets: jax.Array  # (2,) int32 pixels: top left corner, negative where padding comes first
    flip: jax.Array  # () bool, left to right


class Jitter(NamedTuple):
    """Colour jitter of one view."""

    apply: jax.Array  # () bool
    factors: jax.Array  # (4,) float32: brightness, contrast, saturation, hue in turns
    order: jax.Array  # (4,) int32 permutation


class Noise(NamedTuple):
    """Photometric noise of one student view."""

    radius: jax.Array  # () float32, the blur's standard deviation in pixels
    jitter: Jitter
    grey: jax.Array  # () bool, whether the view becomes grey


def _between(u: jax.Array, bounds: tuple[float, float]) -> jax.Array:
    """Map numbers that are uniform in [0, 1) to numbers that are uniform between two bounds."""
    low, high = bounds
    return low + u * (high - low)


def _scaled(scale: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(2,) int32 pixels, at least 1: a size times `scale`, rounded down."""
    lengths = jnp.floor(scale * jnp.array(size, jnp.float32)).astype(jnp.int32)
    return jnp.maximum(lengths, 1)


def _offsets(u: jax.Array, gap: jax.Array) -> jax.Array:
    """Whole numbers, uniform between 0 and `gap` inclusive, whatever the sign of `gap`."""
    steps = jnp.floor(u * (jnp.abs(gap) + 1)).astype(jnp.int32)
    return jnp.sign(gap) * steps


def _crop(
    u: jax.Array, shape: tuple[int, int], size: tuple[int, int], scale: tuple[float, float]
) -> Window:
    drawn = _between(u[0], scale)
    lengths = _scaled(drawn, shape)
    return Window(drawn, lengths, _offsets(u[1:3], lengths - jnp.array(size)), u[3] < 0.5)


def _jitter(u: jax.Array, strength: float, hue: float) -> Jitter:
    factors = _between(u[1:4], (max(0.0, 1.0 - strength), 1.0 + strength))
    turn = _between(u[4:5], (-hue, hue))
    order = jnp.array(ORDERS)[jnp.floor(u[5] * len(ORDERS)).astype(jnp.int32)]
    return Jitter(u[0] < JITTER_RATE, jnp.concatenate([factors, turn]), order)


def draw_crop(
    key: jax.Array, shape: tuple[int, int], size: tuple[int, int], scale: tuple[float, float]
) -> Window:
    """Scale an image, crop it at a random place, flip it half the time.

    A scaled image smaller than the crop lies at a random place inside the crop; its offset is then
    negative.

    Args:
        shape: (h, w) of the image. size: (H, W) of the crop. scale: range of the scale.
    """
    return _crop(jax.random.uniform(key, (4,)), shape, size, scale)


def draw_jittered_crop(
    key: jax.Array,
    shape: tuple[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
    strength: float,
    hue: float,
) -> tuple[Window, Jitter]:
    """A crop as in `draw_crop` and, half the time, colour jitter.

    Args:
        strength: largest distance of the factors from 1. hue: largest turn, in full turns.
    """
    u = jax.random.uniform(key, (10,))
    return _crop(u[:4], shape, size, scale), _jitter(u[4:], strength, hue)


def draw_view(
    key: jax.Array,
    place: jax.Array,
    size: tuple[int, int],
    zoom: tuple[float, float],
    strength: float,
    hue: float,
) -> tuple[Window, Noise]:
    """One view of a group's frame, and the noise that only the student sees.

    The frame is flipped half the time; except for view 0, a window of it is taken. The noise
    always blurs, jitters colours half the time and turns one view in five grey.

    Args:
        place: () int32, the view's place in its group.
        size: (H, W) of the frame. zoom: range of the window's share of each side; above 1 the
            window is larger than the frame and its offset negative.
        strength, hue: as in `draw_jittered_crop`.
    """
    u = jax.random.uniform(key, (12,))
    drawn = jnp.where(place == 0, 1.0, _between(u[0], zoom))
    lengths = _scaled(drawn, size)
    window = Window(drawn, lengths, _offsets(u[1:3], jnp.array(size) - lengths), u[3] < 0.5)
    noise = Noise(_between(u[4], BLUR_RADIUS), _jitter(u[5:11], strength, hue), u[11] < GREY_RATE)
    return window, noise
