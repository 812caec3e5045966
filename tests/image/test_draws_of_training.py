"""What training draws over seeds, steps and items: distributions, independence, repetition."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import views
from dasac_jax.image.view_parameters import draw_crop, draw_jittered_crop
from dasac_jax.method import steps
from dasac_jax.reporting.contact_sheet import drawn_views

SEEDS, STEPS, GROUPS, VIEWS, ROWS = 6, 16, 4, 4, 8
SIZE, SHAPE = (512, 1024), (1052, 1914)  # as published: only numbers are drawn here
SETTINGS = {
    "size": SIZE, "num_views": VIEWS, "target_scale": (1.0, 1.1), "zoom": (0.5, 1.0),
    "jitter": 0.4, "hue": 0.1,
}  # fmt: skip
QUICKLY = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
ITEMS = {
    "source_item": np.arange(ROWS, dtype=np.int32),
    "target_view": np.arange(GROUPS * VIEWS, dtype=np.int32),
}


def draw_adapt(key, raw):
    def source(item):
        return draw_crop(views.item_key(key, views.SOURCE, item), SHAPE, SIZE, (0.5, 1.0))

    target = drawn_views(key, raw["target_view"], **SETTINGS)
    return {"target": target, "source": jax.vmap(source)(raw["source_item"])}


def draw_baseline(key, raw):
    def draw(domain, item):
        item = views.item_key(key, domain, item)
        return draw_jittered_crop(item, SHAPE, (640, 640), (0.5, 2.0), 0.5, 0.5)

    items = {"source": raw["source_item"], "target": raw["target_view"]}
    return {
        name: jax.vmap(lambda item, domain=domain: draw(domain, item))(items[name])
        for name, domain in (("source", views.SOURCE), ("target", views.TARGET))
    }


def drawn_by_training(draw, stage, seeds=SEEDS, num_steps=STEPS, items=ITEMS):
    """Everything drawn, with axes (seed, step, item), by the keys that training's steps use."""
    step = steps.on_views(lambda _, batch: batch, draw, stage)

    def one(seed, number):
        drawn = step(SimpleNamespace(seed=seed, step=number), items)
        return {name: drawn[name] for name in ("source", "target")}

    both = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    drawn = jax.jit(both, compiler_options=QUICKLY)(
        jnp.arange(seeds, dtype=jnp.uint32), jnp.arange(num_steps)
    )
    return jax.tree.map(np.array, drawn)


@pytest.fixture(scope="module")
def adapt():
    return drawn_by_training(draw_adapt, stage=1)


@pytest.fixture(scope="module")
def baseline():
    return drawn_by_training(draw_baseline, stage=0)


def unit(values, low, high):
    return (np.asarray(values, np.float64) - low) / (high - low)


def positions(offsets, gaps, rng):
    """Whole numbers from 0 to `gaps`, spread to (0, 1): uniform if they are."""
    return (np.abs(offsets) + rng.random(offsets.shape)) / (np.abs(gaps) + 1)


def uniform_numbers(drawn):
    """{name: (seed, step, item) numbers that ought to be uniform in (0, 1)}."""
    rng = np.random.default_rng(0)
    numbers = {}
    frames, windows, noise = drawn["target"]
    first = np.s_[..., ::VIEWS]  # one view of each group
    later = np.arange(GROUPS * VIEWS) % VIEWS > 0  # those that zoom
    numbers["frame scale"] = unit(frames.scale, 1.0, 1.1)[first]
    numbers["zoom"] = unit(windows.scale, 0.5, 1.0)[..., later]
    source = drawn["source"]
    numbers["source scale"] = unit(source.scale, 0.5, 1.0)
    for axis, name in enumerate(("rows", "columns")):
        gaps = frames.lengths - np.array(SIZE)
        numbers[f"frame {name}"] = positions(frames.offsets, gaps, rng)[..., axis][first]
        gaps = np.array(SIZE) - windows.lengths
        numbers[f"window {name}"] = positions(windows.offsets, gaps, rng)[..., later, axis]
        gaps = source.lengths - np.array(SIZE)
        numbers[f"source {name}"] = positions(source.offsets, gaps, rng)[..., axis]
        assert (np.sign(source.offsets) * np.sign(gaps) >= 0).all()
    numbers["blur"] = unit(noise.radius, 0.1, 2.0)
    return numbers | factors(noise.jitter, 0.4, 0.1)


def factors(jitter, strength, hue):
    numbers = {
        name: unit(jitter.factors[..., i], 1 - strength, 1 + strength)
        for i, name in enumerate(("brightness", "contrast", "saturation"))
    }
    return numbers | {"hue": unit(jitter.factors[..., 3], -hue, hue)}


def rates(drawn):
    """{name: (seed, step, item) bool and how often it ought to be true}."""
    frames, windows, noise = drawn["target"]
    found = {
        "frame flip": (frames.flip[..., ::VIEWS], 0.5),
        "view flip": (windows.flip, 0.5),
        "first view's flip": (windows.flip[..., ::VIEWS], 0.5),
        "source flip": (drawn["source"].flip, 0.5),
        "jitter": (noise.jitter.apply, 0.5),
        "grey": (noise.grey, 0.2),
    }
    return found | orders(noise.jitter)


def orders(jitter):
    found = {}
    for place in range(4):
        for operation in range(4):
            chosen = jitter.order[..., place] == operation
            found[f"operation {operation} comes {place}"] = (chosen, 0.25)
    return found


def assert_uniform(name, numbers):
    """No gap between the shares below each value and that value: Kolmogorov and Smirnov, 1e-4."""
    values = np.sort(numbers.ravel())
    assert values[0] >= -1e-5 and values[-1] <= 1 + 1e-5, name
    gap = np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    assert gap < 2.23 / np.sqrt(len(values)), name


def assert_rate(name, chosen, rate):
    spread = np.sqrt(rate * (1 - rate) / chosen.size)
    assert abs(chosen.mean() - rate) < 4 * spread, name


def test_distributions(adapt):
    for name, numbers in uniform_numbers(adapt).items():
        assert_uniform(name, numbers)
    for name, (chosen, rate) in rates(adapt).items():
        assert_rate(name, chosen, rate)


def test_distributions_of_the_baseline(baseline):
    rng = np.random.default_rng(0)
    for window, jitter in baseline.values():
        numbers = {"scale": unit(window.scale, 0.5, 2.0)} | factors(jitter, 0.5, 0.5)
        for axis in range(2):
            gaps = (window.lengths - 640)[..., axis]
            numbers[f"offset {axis}"] = positions(window.offsets[..., axis], gaps, rng)
        for name, values in numbers.items():
            assert_uniform(name, values)
        found = {"flip": (window.flip, 0.5), "jitter": (jitter.apply, 0.5)} | orders(jitter)
        for name, (chosen, rate) in found.items():
            assert_rate(name, chosen, rate)


def test_views_of_a_group_share_their_frame_alone(adapt):
    frames, windows, noise = adapt["target"]
    for values in jax.tree.leaves(frames):
        grouped = values.reshape(SEEDS, STEPS, GROUPS, VIEWS, -1)
        assert (grouped == grouped[..., :1, :]).all()
    zooms = windows.scale.reshape(SEEDS, STEPS, GROUPS, VIEWS)
    assert (zooms[..., 0] == 1).all()
    for values in (zooms[..., 1:], noise.radius):
        assert len(np.unique(values)) > 0.99 * values.size


def test_nothing_drawn_tells_of_another(adapt):
    """Neither of the same item's, nor of the next item's, step's or seed's."""
    drawn = uniform_numbers(adapt) | {name: chosen for name, (chosen, _) in rates(adapt).items()}
    views_alone = {
        name: values.astype(float)
        for name, values in drawn.items()
        if values.shape[-1] == GROUPS * VIEWS and "comes" not in name
    }
    assert len(views_alone) == 8
    table = np.stack([values.ravel() for values in views_alone.values()])
    between = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(between).max() < 4.5 / np.sqrt(table.shape[1])
    for name, values in drawn.items():
        values = values.astype(float)
        for axis in range(3):
            one, other = (np.delete(values, end, axis).ravel() for end in (0, -1))
            close = abs(np.corrcoef(one, other)[0, 1]) < 4.5 / np.sqrt(one.size)
            assert close, (name, ("seed", "step", "item")[axis])


def test_stages_and_domains_draw_apart(adapt, baseline):
    source = baseline["source"][0].scale
    for other in (baseline["target"][0].scale[..., :ROWS], adapt["source"].scale):
        both = unit(source, 0.5, 2.0).ravel(), other.ravel()
        assert abs(np.corrcoef(*both)[0, 1]) < 4.5 / np.sqrt(source.size)
    assert not np.isin(unit(adapt["source"].scale, 0.5, 1.0), unit(source, 0.5, 2.0)).any()


def test_the_same_seed_step_and_item_draw_the_same(adapt):
    """In another program, beside other items, after fewer steps."""
    few = {
        "source_item": np.array([5, 2], np.int32),
        "target_view": np.array([6, 7], np.int32),
    }
    again = drawn_by_training(draw_adapt, 1, seeds=2, num_steps=3, items=few)
    for name, items in (("source", few["source_item"]), ("target", few["target_view"])):
        for ours, whole in zip(
            jax.tree.leaves(again[name]), jax.tree.leaves(adapt[name]), strict=True
        ):
            np.testing.assert_array_equal(ours, whole[:2, :3, items])
