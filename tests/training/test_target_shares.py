"""The shares of predicted target pixels: watched while adapting, counted at the end, no label."""

import json
import logging
import shutil

import numpy as np
import pytest

from dasac_jax.data import sampling
from dasac_jax.method import signs
from dasac_jax.reporting import metrics_log
from dasac_jax.training import target_shares
from dasac_jax.training.workdir import Run


@pytest.fixture
def run(whole, tiny_config, tmp_path):
    """A run with the weights stage's file alone, and the shares that the file tells of."""
    shutil.copy(whole.folder / "weights.tsv", tmp_path)
    return Run(tiny_config(data__root=str(whole.folder / "data")), tmp_path)


def counts_of(run):
    names = [entry.name for entry in run.classes]
    return sampling.load_counts(run.weights_file, run.open("target_train").names, names)


def record(run, shares):
    """metrics.jsonl with these shares by step; road has what the others leave."""
    lines = [
        {"stage": "adapt", "step": step, "seconds": 1, "values": {"share_teacher": list(values)}}
        for step, values in shares.items()
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_class_that_vanishes_is_told_once_while_adapting(run, caplog):
    counts = counts_of(run)
    drawn = sampling.target_probabilities(8, run.importance_weights(), 19)
    expected = drawn.mean(0) @ (counts / counts.sum(1, keepdims=True))
    lost = int(expected.argmax())
    name = run.classes[lost].name
    gone = expected.copy()
    gone[lost] = 0.1 * expected[lost]
    watch = target_shares.watcher(run, 4)
    with caplog.at_level(logging.WARNING):
        record(run, {2: expected, 4: expected})
        watch(4)
        assert caplog.text == ""
        record(run, {2: expected, 4: expected, 6: gone, 8: gone})
        watch(8)
        watch(8)
    (line,) = caplog.messages
    assert line.startswith(f"adapt step 8: {name}: {100 * expected[lost]:.1f} % → ")
    assert line.endswith("of predicted pixels: vanished; see docs/when_it_fails.md")


def test_without_the_baselines_pixels_nothing_is_watched(run):
    names = run.open("target_train").names
    shares = np.full((8, 19), 1 / 8)
    sampling.save_weights(run.weights_file, names, shares, [entry.name for entry in run.classes])
    assert target_shares.watcher(run, 4) is None
    run.weights_file.unlink()
    assert target_shares.watcher(run, 4) is None


def test_the_report_has_the_weights_stages_shares_for_the_baseline(whole):
    result = json.loads((whole.folder / "metrics.json").read_text())
    lines = (whole.folder / "weights.tsv").read_text().splitlines()[2:]
    counts = np.array([line.split("\t")[1:] for line in lines], int).sum(0)
    shares = list(result["shares"]["baseline"].values())
    np.testing.assert_allclose(shares, counts / counts.sum(), rtol=1e-12)
    assert sum(result["shares"]["adapted"].values()) == pytest.approx(1)
    assert result["shares"]["adapted"] != result["shares"]["baseline"]


def test_of_a_baseline_from_elsewhere_the_weights_stages_file_is_enough(run, whole):
    assert target_shares.measure(run, []) is None  # nothing is adapted yet
    shutil.copytree(whole.folder / "adapt", run.folder / "adapt")
    result = json.loads((whole.folder / "metrics.json").read_text(encoding="utf-8"))
    assert target_shares.measure(run, ["adapt"]) == result["shares"]
    run.weights_file.unlink()
    assert target_shares.measure(run, ["adapt"]) is None


def test_signs_are_recorded_and_need_no_label(unlabelled, small_whole):
    """One of the two runs has no target training label to read."""
    of_both = []
    for folder in (unlabelled.folder, small_whole.folder):
        lines = metrics_log.read(folder)
        of_both.append({name: metrics_log.curve(lines, "adapt", name) for name in signs.NAMES})
    for name in signs.NAMES:
        (steps, ours), (other_steps, theirs) = (curves[name] for curves in of_both)
        assert steps.tolist() == other_steps.tolist() == [1, 2, 3, 4, 5, 6]
        np.testing.assert_array_equal(ours, theirs)
        assert ((ours >= 0) & (ours <= 1)).all()
    assert (of_both[0]["share_student"][1].sum(1) > 0.999).all()
    ours, theirs = (
        json.loads((folder / "metrics.json").read_text())["shares"]
        for folder in (unlabelled.folder, small_whole.folder)
    )
    assert ours == theirs
