"""Means over the steps since they were last logged, over restarts too."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.training.step_metrics import StepMetrics


def add(kept, step, loss, skipped=False):
    metrics = {"loss": jnp.float32(loss), "skipped": jnp.float32(skipped)}
    kept.add(step, metrics, [f"{step}.png"])


def through_json(kept, most=3):
    return StepMetrics("adapt", most, json.loads(json.dumps(kept.progress(), allow_nan=False)))


def test_means_outlast_a_restart_bit_for_bit():
    losses = np.random.default_rng(0).normal(size=9).astype(np.float32)
    whole, pieces = StepMetrics("adapt", 3, {}), StepMetrics("adapt", 3, {})
    for step, loss in enumerate(losses, start=1):
        add(whole, step, loss)
        add(pieces, step, loss)
        pieces = through_json(pieces)
    assert whole.means() == pieces.means() == ({"loss": float(np.mean(losses.astype(float)))}, 0)


def test_skipped_steps_are_left_out():
    metrics = StepMetrics("adapt", 3, {})
    for step, loss in enumerate([1.0, math.nan, 3.0], start=1):
        add(metrics, step, loss, math.isnan(loss))
    assert metrics.means() == through_json(metrics).means() == ({"loss": 2.0}, 1)
    metrics.clear()
    add(metrics, 4, 5.0, skipped=True)  # its gradient was not finite
    means, skipped = metrics.means()
    assert math.isnan(means["loss"]) and skipped == 1


def test_numbers_by_class_have_means_by_class():
    metrics = StepMetrics("adapt", 3, {})
    for step, shares in enumerate(([0.25, 0.75], [math.nan, math.nan], [0.5, 0.5]), start=1):
        skipped = math.isnan(shares[0])
        values = {"loss": jnp.float32(1), "skipped": jnp.float32(skipped)}
        # One row, as the first of several devices has it.
        metrics.add(step, values | {"share": jnp.array([shares], jnp.float32)}, ["1.png"])
        metrics = through_json(metrics)
    means, skipped = metrics.means()
    assert skipped == 1 and means["loss"] == 1 and means["share"].tolist() == [0.375, 0.625]
    metrics.clear()
    metrics.add(4, values | {"skipped": jnp.float32(1), "share": jnp.zeros((1, 2))}, ["1.png"])
    means, _ = metrics.means()  # with no step left there is no number for any class
    assert set(means) == {"loss"} and math.isnan(means["loss"])


@pytest.mark.parametrize("cleared", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize("restarted", [False, True])
def test_skipped_in_a_row_are_counted_over_log_lines_and_restarts(cleared, restarted):
    metrics = StepMetrics("adapt", 3, {})
    for step in (1, 2, 3):
        add(metrics, step, 1.0, skipped=True)
        if step in cleared:
            metrics.means()
            metrics.clear()
        if restarted:
            metrics = through_json(metrics)
    with pytest.raises(
        UserError, match=r"^adapt steps 1 to 3 .* a gradient is not finite.* 1\.png:"
    ):
        metrics.means()


def test_a_finite_step_ends_the_row():
    metrics = StepMetrics("adapt", 2, {})
    for step, skipped in enumerate([True, False, True, False, True], start=1):
        add(metrics, step, 1.0, skipped)
        metrics.means()
        metrics.clear()
    add(metrics, 6, 1.0, True)
    with pytest.raises(UserError, match="adapt steps 5 to 6"):
        metrics.means()
