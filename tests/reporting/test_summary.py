"""The report's files and table hold the numbers of the summaries."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.data import classes
from dasac_jax.errors import UserError
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.reporting import summary

COLOURS = ((9, 8, 7), (0, 0, 200), (0, 100, 0), (50, 60, 70))
CLASSES = classes.own(("road", "sky", "traffic light", "train"), COLOURS)
WEAK = summarise(np.array([[6, 2, 0, 0], [2, 6, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]), ignore=(2,))
STRONG = summarise(np.array([[8, 0, 0, 0], [0, 8, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]), ignore=(2,))
PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
FACTS = {
    "seed": np.uint32(3),
    "seconds": 12.3456789,
    "loss": float("nan"),
    "versions": {"jax": "0.10"},
}


def _write(workdir: Path, **changes) -> str:
    out = io.StringIO()
    arguments = {"ignore": (2,), "picture": PICTURE, "facts": FACTS, **changes}
    rows = arguments.pop("rows", {"baseline": WEAK, "adapted": STRONG})
    console = Console(file=out, width=100)
    summary.write(workdir, rows, CLASSES, **arguments)
    summary.show(workdir, console=console)
    return out.getvalue()


def test_metrics_file_names_classes_and_has_null_for_nan(tmp_path):
    _write(tmp_path)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert list(stored) == ["baseline", "adapted", "classes", "left_out", "facts"]
    assert stored["baseline"]["iou"]["road"] == pytest.approx(6 / 11)
    assert stored["baseline"]["iou"]["train"] is None
    assert stored["baseline"]["miou"] == pytest.approx((6 / 11 + 6 / 10) / 2)
    assert stored["adapted"]["precision"]["road"] == pytest.approx(8 / 9)
    assert stored["adapted"]["recall"]["traffic light"] == 0.5
    assert stored["adapted"]["pixel_accuracy"] == pytest.approx(17 / 18)
    assert stored["baseline"]["mean"] == "mean over 2 of 3 classes"
    assert stored["left_out"] == ["traffic light"]
    assert stored["classes"]["sky"] == [0, 0, 200] and len(stored["classes"]) == 4
    assert stored["facts"] == {
        "seed": 3,
        "seconds": 12.3456789,
        "loss": None,
        "versions": {"jax": "0.10"},
    }


def test_markdown_has_table_means_gains_facts_and_picture(tmp_path):
    _write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| class | baseline | adapted |\n| --- | ---: | ---: |\n| road | 54.5 | 88.9 |" in text
    assert "| traffic light (not in the mean) | 50.0 | 50.0 |" in text
    assert "| train | – | – |" in text
    assert "| **mean IoU over 2 of 3 classes** | **57.3** | **94.4** |" in text
    assert "mean over 2 of 3 classes: train is neither in the truth nor predicted." in text
    assert "- adapted over baseline: +37.2 points" in text
    assert "- seed: 3\n" in text and "- versions: jax 0.10" in text
    assert "(report.png)" in text
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "report.png")), PICTURE)


def test_terminal_shows_the_same_and_again_from_the_file(tmp_path):
    shown = _write(tmp_path)
    cells = [re.findall(r"[\w–.]+(?: \w+)*", line) for line in shown.splitlines()]
    assert ["road", "54.5", "88.9"] in cells
    assert ["mean IoU over 2 of 3 classes", "57.3", "94.4"] in cells
    assert "adapted over baseline: +37.2 points" in shown
    assert "mean over 2 of 3 classes: train is neither in the truth nor predicted." in shown
    assert shown.index("train") < shown.index("mean IoU")
    again = io.StringIO()
    summary.show(tmp_path, console=Console(file=again, width=100))
    assert again.getvalue() == shown


def test_every_gain_between_the_stages(tmp_path):
    rows = {"source only": WEAK, "baseline": STRONG, "adapted": WEAK, "teacher": STRONG}
    shown = _write(tmp_path, rows=rows)
    assert "baseline over source only: +37.2 points" in shown
    assert "adapted over baseline: -37.2 points" in shown
    assert "teacher over baseline: +0.0 points" in shown


def test_missing_stage_and_picture_leave_no_trace(tmp_path):
    shown = _write(tmp_path, rows={"adapted": STRONG}, picture=None)
    assert "points" not in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "report.md"]
    assert "report.png" not in (tmp_path / "report.md").read_text()


def test_unscored_evaluation_has_no_gain(tmp_path):
    rows = {"baseline": summarise(np.zeros((4, 4))), "adapted": STRONG}
    assert "points" not in _write(tmp_path, rows=rows)


def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch):
    _write(tmp_path)
    before = (tmp_path / "metrics.json").read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("dasac_jax.files.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*report.png: disk full"):
        _write(tmp_path, rows={"baseline": STRONG})
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_unreadable_result_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*metrics.json"):
        summary.show(tmp_path)
    (tmp_path / "metrics.json").write_text('{"baseline": ')
    with pytest.raises(UserError, match=r"cannot read .*metrics.json"):
        summary.show(tmp_path)


def test_names_must_fit_the_scores(tmp_path):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        summary.write(tmp_path, {"baseline": WEAK}, CLASSES[:3], facts={})


@pytest.mark.parametrize("content", ["[]", "null", "{}", "7", '{"facts": 7}', "{"])
def test_scores_of_another_kind_are_refused(content, tmp_path):
    assert summary.facts(tmp_path) == {}
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*metrics\.json: .*; remove it"):
        summary.facts(tmp_path)


def test_what_was_not_looked_for_is_told(tmp_path):
    assert "vanished classes" not in _write(tmp_path)
    told = _write(tmp_path, facts=FACTS | {summary.VANISHED_UNKNOWN: "not looked for"})
    assert "warning: vanished classes: not looked for" in told
