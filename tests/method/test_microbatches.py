"""Batches in parts: the numbers of the whole, and numbers of parts that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.method import microbatches
from dasac_jax.training import stages


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_mapping_keeps_the_order(parts):
    items = jnp.arange(12.0).reshape(6, 2)
    sizes = []

    def function(some):
        sizes.append(len(some))
        return some.sum(1, keepdims=True) ** 2

    result = microbatches.map_in_parts(function, items, parts)
    np.testing.assert_array_equal(result[:, 0], [1, 25, 81, 169, 289, 441])
    assert set(sizes) == {6 // parts}


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_gradients_and_metrics_are_means_over_all_items(parts):
    rng = np.random.default_rng(0)
    batch = {"few": rng.normal(size=(4, 3)), "many": rng.normal(size=(8, 3))}
    batch = {name: jnp.asarray(items, jnp.float32) for name, items in batch.items()}
    batch["keys"] = jax.random.split(jax.random.key(0), 8)

    def loss(params, batch):
        drawn = jax.vmap(jax.random.normal)(batch["keys"])
        few = ((batch["few"] @ params["w"]) ** 2).mean()
        many = (drawn * jnp.sin(batch["many"] @ params["w"])).mean()
        return few + many, {"few": few, "many": many}

    params = {"w": jnp.array([0.3, -0.2, 0.9])}
    grads, metrics = microbatches.gradient_in_parts(loss, params, batch, parts)
    (_, whole), expected = jax.value_and_grad(loss, has_aux=True)(params, batch)
    np.testing.assert_allclose(grads["w"], expected["w"], rtol=1e-5)
    for name, value in whole.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


@pytest.mark.parametrize(
    ("parts", "rows", "views", "fitting"),
    [(3, 8, 8, "1, 2, 4, 8"), (8, 4, 8, "1, 2, 4"), (2, 3, 4, "1"), (4, 8, 2, "1, 2")],
)
def test_parts_that_do_not_fit_are_refused_with_those_that_would(parts, rows, views, fitting):
    with pytest.raises(UserError) as caught:
        microbatches.check(parts, rows, views)
    text = str(caught.value)
    assert text.startswith(f"config.adapt.accumulate is {parts}: {rows} source images and {views} ")
    assert text.endswith(f": {fitting}") and "\n" not in text
    for number in fitting.split(", "):
        microbatches.check(int(number), rows, views)


def test_a_run_is_refused_before_it_starts(tiny_config):
    # Eight simulated devices hold one of the eight source rows and of the views each.
    stages.check_devices(tiny_config())
    stages.check_devices(tiny_config(adapt__source_batch=16, adapt__groups=4, adapt__accumulate=2))
    with pytest.raises(UserError, match=r"accumulate is 2: 1 source images and 1 target views"):
        stages.check_devices(tiny_config(adapt__accumulate=2))
    stages.check_devices(tiny_config(adapt__accumulate=2, stages="baseline"))
