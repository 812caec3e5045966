"""The numbers and pictures that a run has written are read as they were written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.reporting import metrics_log


def line(stage, step, seconds=1.0, **values):
    return {"stage": stage, "step": step, "seconds": seconds, "values": values}


def write(folder, *lines):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_a_curve_is_of_one_stage_and_has_nan_for_null(tmp_path):
    first = line("adapt", 50, class_prior=[0.25, None], loss_source=1.0)
    write(tmp_path, line("baseline", 50, loss_source=2.0), first, line("adapt", 100, loss_source=0))
    lines = metrics_log.read(tmp_path)
    steps, values = metrics_log.curve(lines, "adapt", "loss_source")
    assert steps.tolist() == [50, 100] and values.tolist() == [1, 0]
    steps, values = metrics_log.curve(lines, "adapt", "class_prior")
    assert steps.tolist() == [50]
    np.testing.assert_array_equal(values, [[0.25, np.nan]])
    assert metrics_log.curve(lines, "baseline", "class_prior")[0].size == 0


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    write(tmp_path, line("adapt", 1))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "adapt", "step": 2, "val')
    assert [each["step"] for each in metrics_log.read(tmp_path)] == [1]


def test_pictures_are_in_the_order_of_stages_and_steps(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = (
        "baseline_000100_selection",
        "adapt_001000_views",
        "adapt_000050_views",
        "adapt_x_views",
    )
    for name in names:
        (folder / f"{name}.png").touch()
    assert metrics_log.pictures(tmp_path) == [
        ("adapt", 50, "views", folder / "adapt_000050_views.png"),
        ("adapt", 1000, "views", folder / "adapt_001000_views.png"),
        ("baseline", 100, "selection", folder / "baseline_000100_selection.png"),
    ]


def test_time_spent_is_added_up_by_stage(tmp_path):
    write(tmp_path, line("baseline", 1, 2.5), line("baseline", 2, 0.5), line("adapt", 1, 4.0))
    assert metrics_log.seconds(metrics_log.read(tmp_path)) == {"baseline": 3.0, "adapt": 4.0}


def test_nothing_there(tmp_path):
    assert metrics_log.read(tmp_path) == [] and metrics_log.pictures(tmp_path) == []


@pytest.mark.parametrize("bad", ["{", "[]", '{"step": 3}', '{"step": "x", "values": {}}', ""])
def test_a_damaged_line_is_named(bad, tmp_path):
    good = '{"stage": "adapt", "step": 1, "seconds": 1, "values": {}}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{bad}\n{good}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not as it was written"):
        metrics_log.read(tmp_path)
