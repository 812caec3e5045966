"""Steps that make their views first: what their random draws depend on."""

import jax
import jax.numpy as jnp

from dasac_jax.method import state, steps


def begun(seed=1, step=0):
    """A state of which only seed and step matter."""
    return state.TrainState(None, None, None, None, None, jnp.int32(step), jnp.uint32(seed))


def test_keys_follow_seed_stage_step_and_item_alone():
    def keys(raw, stage=0, **options):
        step = steps.on_views(lambda *pair: pair, lambda key, raw: {}, stage)
        _, batch = step(begun(**options), raw)
        return [jax.random.key_data(batch[f"{n}_keys"]).tolist() for n in ("source", "target")]

    raw = {"source_item": jnp.arange(4), "target_view": jnp.arange(8)}
    half = {"source_item": jnp.arange(2, 4), "target_view": jnp.arange(4, 8)}
    source, target = keys(raw)
    assert keys(half) == [source[2:], target[4:]]
    others = [keys(raw, seed=2), keys(raw, step=1), keys(raw, stage=1)]
    drawn = [tuple(key) for pair in [(source, target), *others] for keys in pair for key in keys]
    assert len(set(drawn)) == len(drawn) == 48


def test_views_are_made_before_the_step_from_a_key_of_its_own():
    raw = {"source_item": jnp.arange(2), "target_item": jnp.arange(2)}
    made = []

    def make_views(key, raw):
        made.append(jax.random.key_data(key).tolist())
        return {"source_image": len(made)}

    step = steps.on_views(lambda run, batch: (run, batch), make_views, 1)
    _, batch = step(begun(), raw)
    step(begun(step=5), raw)
    assert batch["source_image"] == 1
    assert made[0] != made[1]
