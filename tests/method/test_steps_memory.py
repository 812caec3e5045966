"""A step in parts, and one that computes activations anew: the same numbers in less memory."""

from functools import partial

import device_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_steps import adapt, assert_trees_equal, begin, changed

from dasac_jax.errors import UserError
from dasac_jax.method import optim, state, steps
from dasac_jax.models.deeplabv2 import DeepLabV2ResNet


def with_keys(batch):
    """The batch with keys that switch dropout on, as the training gives them."""
    keys = jax.random.split(jax.random.key(3), 16)
    return batch | {"source_keys": keys[:8], "target_keys": keys[8:]}


def assert_close(ours, theirs):
    """Tensors of two states: equal to rounding, each as a whole."""
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        apart = np.linalg.norm((np.asarray(mine, float) - np.asarray(other, float)).ravel())
        assert apart <= 1e-5 * np.linalg.norm(np.asarray(other, float).ravel())


def two_steps(model, batches, **options):
    """The state after two adaptation steps, and their metrics."""
    step = jax.jit(adapt(model, confidence_weighting="batch", **options))
    log, run = [], begin()
    for batch in batches[:2]:
        run, metrics = step(run, with_keys(batch) | {"target_label": batch["source_label"]})
        log.append(metrics)
    return run, log


@pytest.fixture(scope="module")
def whole(model, batches):
    return two_steps(model, batches)


class TestParts:
    """The adaptation in parts does what it does in one."""

    @pytest.mark.parametrize("parts", [2, 8])
    def test_losses_and_updates(self, parts, whole, model, batches):
        run, log = two_steps(model, batches, accumulate=parts)
        assert set(log[0]) >= {"loss_source", "loss_target", "loss_target_supervised", "labelled"}
        assert 0 < log[0]["labelled"] < 1
        assert_trees_equal(log, whole[1], rtol=1e-5)
        assert_close(run, whole[0])
        assert changed(whole[0].params, begin().params)

    def test_on_two_devices(self, whole, model, batches):
        step = adapt(model, confidence_weighting="batch", accumulate=2, axis_name="devices")
        step = jax.pmap(
            step, "devices", in_axes=(None, 0), out_axes=None, devices=jax.local_devices()[:2]
        )
        batch = with_keys(batches[0]) | {"target_label": batches[0]["source_label"]}
        _, metrics = step(begin(), device_runs.split(batch, 2))
        assert_trees_equal(metrics, whole[1][0], rtol=1e-5)

    def test_parts_that_do_not_fit(self, model, run, batches):
        with pytest.raises(UserError, match=r"accumulate is 3: 8 source .* 1, 2, 4, 8"):
            adapt(model, accumulate=3)(run, batches[0])


# On a CPU XLA would find that activations are computed twice, and keep them after all.
kept_apart = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_disable_hlo_passes": "cse_barrier_expander",
    },
)


class TestRemat:
    """Activations computed anew change nothing but the memory that a step needs."""

    def steps(self, name, batch):
        """What the step gives and the bytes that it needs, without and with remat."""
        small = {"num_classes": 5, "blocks": (4, 1, 0, 0), "widths": (6, 3, 4, 5), "stem": 4}
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(
            DeepLabV2ResNet(**small).init, jax.random.key(0), batch["source_image"]
        )
        initial = jax.tree.map(lambda leaf: rng.uniform(-0.5, 1, leaf.shape), shapes)
        initial["batch_stats"] = jax.tree.map(abs, initial["batch_stats"])
        initial = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), initial)
        for remat in (False, True):
            model = DeepLabV2ResNet(**small, frozen_norm=name == "adapt", remat=remat)
            optimiser = optim.create(1e-3)
            run = state.create(model, optimiser, seed=0, variables=initial)
            step = partial(steps.baseline_step, model=model, optimiser=optimiser)
            step = adapt(model, accumulate=2, pool="none") if name == "adapt" else step
            compiled = kept_apart(step).lower(run, batch).compile()
            yield compiled(run, batch), compiled.memory_analysis().temp_size_in_bytes

    @pytest.mark.parametrize("name", ["baseline", "adapt"])
    def test_steps(self, name):
        batch = device_runs.batches(name, 4)[0]
        (without, plain), (ours, less) = self.steps(name, batch)
        assert_close(ours, without)
        assert ours[1]["skipped"] == 0
        assert less < 0.8 * plain
