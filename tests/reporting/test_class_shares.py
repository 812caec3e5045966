"""Classes that vanish or grow beyond measure are named in every report."""

import io
import json

import pytest
from rich.console import Console

from dasac_jax.data import classes
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.reporting import class_shares, page, summary

NAMES = ("road", "tree", "bicyclist", "pole")
CLASSES = classes.own(NAMES, ((9, 8, 7), (0, 0, 200), (0, 100, 0), (50, 60, 70)))
TREE = "tree: 7.0 % → 0.3 % of predicted pixels: vanished; see docs/when_it_fails.md"
BICYCLIST = "bicyclist: 1.0 % → 9.0 % of predicted pixels: grew 9-fold; see docs/when_it_fails.md"


def named(before, after, **options):
    found = class_shares.changes({"tree": before}, {"tree": after}, **options)
    return [change.what for change in found]


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (0.07, 0.003, ["vanished"]),
        (0.07, 0.0, ["vanished"]),
        (0.07, 0.0139, ["vanished"]),
        (0.07, 0.0141, []),
        (0.0009, 0.0, []),  # a few objects
        (0.01, 0.09, ["grew 9-fold"]),
        (0.01, 0.049, []),
        (0.001, 0.009, []),  # still next to nothing
        (0.0, 0.02, ["grew from next to nothing"]),
        (0.0001, 0.02, ["grew from next to nothing"]),
        (0.06, 0.4, []),  # not rare
    ],
)
def test_a_fifth_and_five_fold(before, after, what):
    assert named(before, after) == what
    assert named(before, after, left_out=["tree"]) == []


@pytest.fixture
def run(tmp_path):
    """A run whose trees vanished and whose bicyclists multiplied."""
    shares = class_shares.entry((0.915, 0.07, 0.01, 0.005), (0.902, 0.003, 0.09, 0.005), NAMES)
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "share_teacher.png").write_bytes(b"")
    rows = {"baseline": summarise([[6, 2, 0, 0]] * 4), "adapted": summarise([[8, 0, 0, 0]] * 4)}
    summary.write(tmp_path, rows, CLASSES, facts={}, shares=shares)
    page.write(tmp_path)
    return tmp_path


def test_every_report_names_them(run):
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["shares"]["baseline"]["tree"] == 0.07
    assert [entry["class"] for entry in stored["shares"]["changed"]] == ["tree", "bicyclist"]
    assert list(summary.evaluations(stored)) == ["baseline", "adapted"]
    terminal = io.StringIO()
    summary.show(run, console=Console(file=terminal, width=60))
    texts = [(run / name).read_text() for name in ("report.md", "report.html")]
    for text in (terminal.getvalue(), *texts):
        assert TREE in text and BICYCLIST in text and "pole:" not in text
    assert "| tree | 7.00 | 0.30 | vanished |" in texts[0]
    assert "| pole | 0.50 | 0.50 |  |" in texts[0]
    assert "(curves/share_teacher.png)" in texts[0]


def test_a_run_in_which_nothing_changed_has_the_table_alone(run):
    shares = class_shares.entry((0.9, 0.1, 0, 0), (0.8, 0.2, 0, 0), NAMES)
    summary.write(run, {}, CLASSES, facts={}, shares=shares)
    page.write(run)
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        assert "warning" not in text.lower() and "20.00" in text


def test_runs_without_shares_say_nothing_of_them(run):
    summary.write(run, {}, CLASSES, facts={})
    page.write(run)
    assert "Predicted pixels" not in (run / "report.html").read_text()
    assert class_shares.of_result(summary.read(run)) == []
