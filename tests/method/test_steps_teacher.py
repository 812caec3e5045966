"""The teacher of the adaptation, and what the total loss is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_steps import adapt, assert_trees_equal, begin, changed

OFTEN = {"teacher_every_steps": 3, "steps_per_epoch": 4, "teacher_momentum": 0.8}


class TestTeacher:
    def test_first_step_copies_the_student_and_resets_the_prior(self, run, step, batches):
        teacher = jax.tree.map(lambda x: x + 1, run.teacher)
        student = run.student
        odd = run.replace(teacher=teacher, class_prior=jnp.full(5, 0.7))
        after, metrics = step(odd, batches[0], **OFTEN)
        assert_trees_equal(after.teacher, student)
        assert metrics["teacher_distance"] == 0
        usual, _ = step(run, batches[0], **OFTEN)
        assert_trees_equal(after.class_prior, usual.class_prior)

    def test_follows_at_its_interval_counted_within_the_epoch(self, run, step, batches):
        followed = []
        for i in range(9):
            # As in training from a baseline, the running statistics of the student stay.
            before = run
            run, metrics = step(run, batches[i], **OFTEN)
            assert_trees_equal(run.batch_stats, before.batch_stats)
            if changed(run.teacher, before.teacher):
                followed.append(i)
                expected = jax.tree.map(
                    lambda old, new: 0.8 * old + 0.2 * new, before.teacher, before.student
                )
                assert_trees_equal(run.teacher, expected, rtol=1e-5)
            apart = jax.tree.map(
                lambda a, b: jnp.linalg.norm((a - b).ravel()), run.teacher, before.student
            )
            assert metrics["teacher_distance"] == pytest.approx(
                float(sum(jax.tree.leaves(apart))), rel=1e-5, abs=1e-7
            )
        # Every third step, and every fourth begins an epoch; at step 0 the two are alike.
        assert followed == [3, 4, 7, 8]

    def test_predicts_without_dropout_and_moves_with_statistics_too(self, run, step, batches):
        stats = jax.tree.map(lambda x: x + 1, run.batch_stats)
        run = run.replace(step=jnp.int32(4), batch_stats=stats)
        after, _ = step(run, batches[0], **OFTEN)
        expected = jax.tree.map(
            lambda old, new: 0.8 * old + 0.2 * new, run.teacher["batch_stats"], stats
        )
        assert_trees_equal(after.teacher["batch_stats"], expected, rtol=1e-5)


class TestTotalLoss:
    def test_target_only_is_training_on_sources_without_labels(self, model, run, step, batches):
        target_only = jax.jit(adapt(model, train_on_source=False))
        after, metrics = target_only(run, batches[0])
        assert "loss_source" not in metrics
        unlabelled = np.full_like(batches[0]["source_label"], 255)
        both, metrics = step(run, batches[0] | {"source_label": unlabelled})
        assert metrics["loss_source"] == 0
        assert_trees_equal(after.params, both.params, rtol=1e-5)
        assert changed(after.params, run.params)

    def test_target_loss_is_phased_in_linearly(self, model, run, step, batches):
        phased = jax.jit(adapt(model, phase_in_steps=4))
        for done, share in ((0, 0.25), (1, 0.5), (3, 1.0), (40, 1.0)):
            here = run.replace(step=jnp.int32(done))
            after, metrics = phased(here, batches[0])
            expected, plain = step(here, batches[0], target_weight=2.0 * share)
            # Logged without its weight.
            assert metrics["loss_target"] == pytest.approx(float(plain["loss_target"]), rel=1e-6)
            assert_trees_equal(after.params, expected.params, rtol=1e-5)
            if share < 1:
                unweighted, _ = step(here, batches[0])
                assert changed(after.params, unweighted.params)

    def test_nothing_flows_through_the_pseudo_labels(self, run, step, batches):
        # No labels, no gradient: only the decay of the weights is left.
        batch = batches[0] | {
            "padded": np.ones_like(batches[0]["padded"]),
            "source_label": np.full_like(batches[0]["source_label"], 255),
        }
        after, metrics = step(run, batch)
        assert metrics["loss_target"] == metrics["labelled"] == 0
        kernel = run.params["conv1"]["kernel"]
        np.testing.assert_allclose(
            after.params["conv1"]["kernel"], kernel * (1 - 1e-3 * 5e-4), rtol=1e-6
        )
        np.testing.assert_array_equal(
            after.params["classifier"]["bias"], run.params["classifier"]["bias"]
        )

    def test_adam_moves_every_bias_by_its_rate(self, model, batches):
        run = begin("adam")
        after, _ = jax.jit(adapt(model, kind="adam"))(run, batches[0])
        moved = np.abs(after.params["classifier"]["bias"] - run.params["classifier"]["bias"])
        np.testing.assert_allclose(moved, 20 * 1e-3, rtol=1e-3)
        moved = np.abs(after.params["bn1"]["bias"] - run.params["bn1"]["bias"])
        np.testing.assert_allclose(moved, 2 * 1e-3, rtol=1e-3)

    def test_target_labels_are_scored_and_not_learnt(self, run, step, batches):
        labels = batches[0]["source_label"]
        after, metrics = step(run, batches[0] | {"target_label": labels})
        expected, plain = step(run, batches[0])
        assert metrics["loss_target_supervised"] > 0
        assert "loss_target_supervised" not in plain
        assert_trees_equal(after.params, expected.params, rtol=1e-6)
