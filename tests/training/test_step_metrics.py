"""Means over the steps since the last look, over restarts too."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.training.step_metrics import Window


def add(window, step, loss, skipped=False):
    metrics = {"loss": jnp.float32(loss), "skipped": jnp.float32(skipped)}
    window.add(step, metrics, [f"{step}.png"])


def through_json(window, most=3):
    return Window("adapt", most, json.loads(json.dumps(window.facts(), allow_nan=False)))


def test_means_outlast_a_restart_bit_for_bit():
    losses = np.random.default_rng(0).normal(size=9).astype(np.float32)
    whole, pieces = Window("adapt", 3, {}), Window("adapt", 3, {})
    for step, loss in enumerate(losses, start=1):
        add(whole, step, loss)
        add(pieces, step, loss)
        pieces = through_json(pieces)
    assert whole.means() == pieces.means() == ({"loss": float(np.mean(losses.astype(float)))}, 0)


def test_skipped_steps_are_left_out():
    window = Window("adapt", 3, {})
    for step, loss in enumerate([1.0, math.nan, 3.0], start=1):
        add(window, step, loss, math.isnan(loss))
    assert window.means() == through_json(window).means() == ({"loss": 2.0}, 1)
    window.clear()
    add(window, 4, 5.0, skipped=True)  # its gradient was not finite
    means, skipped = window.means()
    assert math.isnan(means["loss"]) and skipped == 1


@pytest.mark.parametrize("cleared", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize("restarted", [False, True])
def test_skipped_in_a_row_are_counted_over_windows_and_restarts(cleared, restarted):
    window = Window("adapt", 3, {})
    for step in (1, 2, 3):
        add(window, step, 1.0, skipped=True)
        if step in cleared:
            window.means()
            window.clear()
        if restarted:
            window = through_json(window)
    with pytest.raises(
        UserError, match=r"^adapt steps 1 to 3 .* a gradient is not finite.* 1\.png:"
    ):
        window.means()


def test_a_sound_step_ends_the_row():
    window = Window("adapt", 2, {})
    for step, skipped in enumerate([True, False, True, False, True], start=1):
        add(window, step, 1.0, skipped)
        window.means()
        window.clear()
    add(window, 6, 1.0, True)
    with pytest.raises(UserError, match="adapt steps 5 to 6"):
        window.means()
