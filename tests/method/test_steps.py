"""The baseline's step, prediction, and steps that are skipped."""

from functools import partial

import device_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_steps import BETA, assert_trees_equal, changed

from dasac_jax.method import optim, steps
from dasac_jax.models import upsample
from dasac_jax.runtime import data_parallel


@pytest.fixture(scope="module")
def baseline():
    model, optimiser = device_runs.TinyNetwork(), optim.create(1e-3)
    return jax.jit(partial(steps.baseline_step, model=model, optimiser=optimiser))


@pytest.fixture
def batch():
    return device_runs.batches("baseline", 1)[0]


class TestBaseline:
    def test_target_images_move_nothing_but_the_statistics(self, run, baseline, batch):
        after, _ = baseline(run, batch)
        other, _ = baseline(run, batch | {"target_image": 2 * batch["target_image"]})
        assert_trees_equal(after.params, other.params)
        assert_trees_equal(after.opt_state, other.opt_state)
        assert changed(after.batch_stats, other.batch_stats)
        assert_trees_equal(after.teacher, run.teacher)
        assert int(after.step) == 1

    def test_target_passes_through_the_updated_network(self, run, baseline, batch):
        after, metrics = baseline(run, batch | {"target_label": batch["source_label"]})
        again, _ = baseline(run, batch | {"target_image": batch["source_image"]})
        params, once = again.params, statistics(run, run.params, batch["source_image"])
        twice = steps.statistics_step(
            once, params, batch["target_image"], model=device_runs.TinyNetwork()
        )
        assert_trees_equal(after.batch_stats, twice, rtol=1e-5)
        assert metrics["loss_target"] > 0


def statistics(run, params, images):
    return steps.statistics_step(run.batch_stats, params, images, model=device_runs.TinyNetwork())


class TestPrediction:
    def test_labels_and_confidence(self, model, run, batches):
        images = batches[0]["source_image"]
        labels, confidence = steps.predict_step(run.student, images, model=model)
        probs = jax.nn.softmax(upsample(model.apply(run.student, images), images.shape[1:3]))
        assert labels.dtype == jnp.int32
        np.testing.assert_array_equal(labels, probs.argmax(-1))
        np.testing.assert_allclose(confidence, probs.max(-1), rtol=1e-6)
        assert 0 < confidence.min() <= confidence.max() <= 1

    def test_at_another_size(self, model, run, batches):
        images = batches[0]["source_image"]
        labels, confidence = steps.predict_step(run.student, images, model=model, size=(30, 50))
        assert labels.shape == confidence.shape == (len(images), 30, 50)


def spoiled(batch, name, value=np.nan):
    """The batch with one bad number in one image."""
    images = np.array(batch[name])
    images[-1, 0, 0, 0] = value
    return batch | {name: images}


class TestSkipping:
    @pytest.mark.parametrize("name", ["source_image", "student_view", "teacher_view"])
    def test_adaptation_keeps_all_but_the_step(self, name, run, step, batches):
        run, _ = step(run, batches[0])
        # Not due: the teacher moves with earlier weights alone.
        after, metrics = step(run, spoiled(batches[1], name))
        assert metrics["skipped"] == 1 and int(after.step) == 2
        assert_trees_equal(after.replace(step=run.step), run)
        on, metrics = step(after, batches[2])
        assert metrics["skipped"] == 0 and changed(on.params, run.params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(on))

    def test_the_first_step_begins_teacher_and_prior_all_the_same(self, run, step, batches):
        odd = run.replace(
            teacher=jax.tree.map(lambda x: x + 1, run.teacher), class_prior=jnp.full(5, 0.7)
        )
        after, metrics = step(odd, spoiled(batches[0], "teacher_view"))
        assert metrics["skipped"] == 1
        assert_trees_equal(after.teacher, run.student)
        assert_trees_equal(after.class_prior, jnp.full(5, BETA))

    @pytest.mark.parametrize("name", ["source_image", "target_image"])
    def test_baseline_keeps_all_but_the_step(self, name, run, baseline, batch):
        after, metrics = baseline(run, spoiled(batch, name))
        assert metrics["skipped"] == 1 and int(after.step) == 1
        assert_trees_equal(after.replace(step=run.step), run)
        assert baseline(after, batch)[1]["skipped"] == 0

    def test_a_gradient_that_overflows_is_enough(self, run, step, batches):
        after, metrics = step(run, batches[0], target_weight=1e30)
        assert np.isfinite([float(value) for value in metrics.values()]).all()
        assert metrics["skipped"] == 1
        assert_trees_equal(after.params, run.params)

    def test_all_devices_skip_what_one_has_to(self, run):
        step, run = device_runs.step_and_state("baseline", 4, data_parallel.AXIS)
        step, run = data_parallel.data_parallel(step), data_parallel.replicate(jax.device_get(run))
        before = data_parallel.fetch(run)
        bad = spoiled(
            device_runs.batches("baseline", 4)[0], "source_image"
        )  # on the last device alone
        after, metrics = step(run, device_runs.split(bad, jax.device_count()))
        assert np.asarray(metrics["skipped"]).tolist() == [1] * jax.device_count()
        for leaf in jax.tree.leaves(after.params):
            shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert all((shard == shards[0]).all() for shard in shards)
        assert_trees_equal(data_parallel.fetch(after.params), before.params)
