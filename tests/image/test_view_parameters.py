"""The drawn parameters have the recipe's ranges and rates."""

from functools import partial

import jax
import numpy as np

from dasac_jax.image.view_parameters import draw_crop, draw_jittered_crop, draw_view

DRAWS = 600


def draws(function, *args):
    keys = jax.random.split(jax.random.key(3), DRAWS)
    drawn = jax.jit(jax.vmap(lambda key: function(key, *args)))(keys)
    return jax.tree.map(np.array, drawn)


def assert_uniform(values, low, high):
    assert values.min() >= low and values.max() <= high
    margin = 0.03 * (high - low)
    assert values.min() < low + margin and values.max() > high - margin
    assert abs(values.mean() - (low + high) / 2) < 0.06 * (high - low)


def assert_rate(values, rate):
    assert abs(values.mean() - rate) < 0.07  # more than three standard deviations


def test_crops():
    windows = draws(partial(draw_crop, shape=(100, 300), size=(40, 60), scale=(0.5, 1.0)))
    assert_uniform(windows.scale, 0.5, 1.0)
    assert_rate(windows.flip, 0.5)
    for axis, (length, size) in enumerate([(100, 40), (300, 60)]):
        lengths, offsets = windows.lengths[:, axis], windows.offsets[:, axis]
        np.testing.assert_array_equal(lengths, np.floor(windows.scale * np.float32(length)))
        assert_uniform(offsets / (lengths - size), 0.0, 1.0)


def test_crop_offsets_reach_both_ends():
    """An image 2 pixels larger than its crop has three places for it, one 2 smaller as well."""
    wide = draws(partial(draw_crop, shape=(12, 8), size=(10, 10), scale=(1.0, 1.0)))
    assert set(wide.offsets[:, 0].tolist()) == {0, 1, 2}
    assert set(wide.offsets[:, 1].tolist()) == {0, -1, -2}
    assert_rate(wide.offsets[:, 0] == 1, 1 / 3)
    assert_rate(wide.offsets[:, 1] == -1, 1 / 3)


@partial(jax.jit, static_argnums=2)
def views_drawn(place, zoom, size):
    keys = jax.random.split(jax.random.key(3), DRAWS)
    settings = {"size": size, "zoom": zoom, "strength": 0.4, "hue": 0.1}
    return jax.vmap(partial(draw_view, place=place, **settings))(keys)


def view_draws(place, zoom):
    return jax.tree.map(np.array, views_drawn(place, zoom, (60, 90)))


def test_views_after_the_first_zoom():
    windows, _ = view_draws(2, (0.5, 1.0))
    assert_uniform(windows.scale, 0.5, 1.0)
    assert_rate(windows.flip, 0.5)
    for axis, size in enumerate([60, 90]):
        lengths, offsets = windows.lengths[:, axis], windows.offsets[:, axis]
        np.testing.assert_array_equal(lengths, np.floor(windows.scale * np.float32(size)))
        assert (offsets >= 0).all() and (offsets + lengths <= size).all()
        assert abs((offsets / np.maximum(size - lengths, 1)).mean() - 0.5) < 0.06


def test_view_0_flips_but_does_not_zoom():
    windows, _ = view_draws(0, (0.5, 0.9))
    assert (windows.scale == 1.0).all() and (windows.offsets == 0).all()
    assert (windows.lengths == [60, 90]).all()
    assert_rate(windows.flip, 0.5)


def test_zooming_out_keeps_the_frame_inside_the_window():
    windows, _ = view_draws(1, (1.2, 1.6))
    assert (windows.offsets <= 0).all() and (windows.offsets < 0).any()
    assert (windows.offsets + windows.lengths >= [60, 90]).all()


def assert_jitter(jitter, low, high, hue):
    assert_rate(jitter.apply, 0.5)
    for column in range(3):
        assert_uniform(jitter.factors[:, column], low, high)
    assert_uniform(jitter.factors[:, 3], -hue, hue)
    assert (np.sort(jitter.order, 1) == np.arange(4)).all()
    assert len({tuple(order) for order in jitter.order.tolist()}) == 24
    for place in range(4):
        assert_rate(jitter.order[:, place] == 3, 0.25)


def test_noise():
    windows, noise = view_draws(1, (0.5, 1.0))
    assert_uniform(noise.radius, 0.1, 2.0)
    assert_rate(noise.grey, 0.2)
    assert_jitter(noise.jitter, 0.6, 1.4, 0.1)
    for first, second in [
        (noise.grey, noise.jitter.apply),
        (noise.jitter.apply, windows.flip),
        (noise.radius > 1.05, windows.scale > 0.75),
    ]:
        assert_rate(first & second, first.mean() * second.mean())  # drawn independently


def test_jittered_crops():
    """A strength above 1 still draws no factor below 0."""
    crop = {"shape": (100, 300), "size": (40, 60), "scale": (0.5, 2.0)}
    windows, jitter = draws(partial(draw_jittered_crop, **crop, strength=1.5, hue=0.5))
    assert_uniform(windows.scale, 0.5, 2.0)
    assert_rate(windows.flip, 0.5)
    assert_jitter(jitter, 0.0, 2.5, 0.5)
