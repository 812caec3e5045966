"""A run that is killed again and again ends with the bits of one that nobody touched."""

import functools
import importlib.util
import json
import re
import shutil
from pathlib import Path

import compiling
import jax
import numpy as np
import pytest
from run_fixtures import SMALL

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture.py"
SMALL_PROGRAM = Path(__file__).parents[1] / "run_small.py"


@pytest.fixture(scope="module")
def torture():
    """The script as a module."""
    # Devices are counted when they are first asked for, which must not be below, where a test
    # sets other flags for the processes that it starts.
    jax.devices()
    specification = importlib.util.spec_from_file_location("torture", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_killed_runs_end_with_the_same_bits(
    torture, small_whole, tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XLA_FLAGS", compiling.QUICKLY)
    monkeypatch.setattr(torture, "PROGRAM", (str(SMALL_PROGRAM),))
    shutil.copytree(small_whole.folder / "data", tmp_path / "killed1" / "data")
    aimed = [("writing", "baseline"), ("validation", r"adapt step 4/")]

    def moments(run, rng):
        writing = torture.writing(run / aimed[0][1], 0.02)
        return [
            (name, writing if name == "writing" else torture.after(run, pattern, 0.05))
            for name, pattern in aimed
        ]

    monkeypatch.setattr(torture, "moments", moments)
    flags = tiny(tmp_path, **SMALL)[4:]
    kills = torture.torture(tmp_path, 2, 0, flags, small_whole.folder)
    assert [kill.moment for kill in kills] == [name for name, _ in aimed]
    assert all(kill.same for kill in kills)
    assert "run 1: 2 kills, the same bits" in capsys.readouterr().out


@pytest.fixture
def copy(torture, small_whole, tmp_path, monkeypatch):
    """A copy of the whole run; checkpoints are read once, tests leave them as they are."""
    monkeypatch.setattr(torture.store, "read", functools.cache(torture.store.read))
    ours = tmp_path / "run"
    shutil.copytree(small_whole.folder, ours, ignore=shutil.ignore_patterns("data", "tensorboard"))
    return ours


def test_a_flipped_bit_anywhere_is_a_difference(torture, small_whole, copy, monkeypatch):
    assert torture.differences(small_whole.folder, copy) == []
    line = json.loads((copy / "metrics.jsonl").read_text().splitlines()[0])
    text = (copy / "metrics.jsonl").read_text()
    loss = json.dumps(line["values"]["loss_source"])
    (copy / "metrics.jsonl").write_text(text.replace(loss, loss[:-1] + "1", 1))
    weights = (copy / "weights.tsv").read_text()
    (copy / "weights.tsv").write_text(re.sub(r"\t\d+\n$", "\t0\n", weights) + "\n")
    result = json.loads((copy / "metrics.json").read_text())
    result["adapted"]["miou"] += 1e-9
    (copy / "metrics.json").write_text(json.dumps(result))
    read = torture.store.read

    def flipped(folder):
        arrays, facts = read(folder)
        if folder.is_relative_to(copy):
            prior = arrays["class_prior"].copy()
            prior.view(np.uint8)[3] ^= 1
            arrays = arrays | {"class_prior": prior}
        return arrays, facts

    monkeypatch.setattr(torture.store, "read", flipped)
    assert torture.differences(small_whole.folder, copy) == [
        "baseline/checkpoints: class_prior", "baseline/best: class_prior",
        "adapt/checkpoints: class_prior", "adapt/best: class_prior",
        "metrics.jsonl", "weights.tsv", "metrics.json",
    ]  # fmt: skip


def test_a_double_and_a_missing_step_are_differences(torture, small_whole, copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    for changed in ([*lines, lines[-1]], lines[:3] + lines[4:]):
        (copy / "metrics.jsonl").write_text("".join(changed))
        assert torture.differences(small_whole.folder, copy) == ["metrics.jsonl"]
    shutil.copy(small_whole.folder / "metrics.jsonl", copy)
    assert torture.differences(small_whole.folder, copy) == []


def test_table_counts_by_moment(torture):
    kills = [torture.Kill("final scores and report", 0, True), torture.Kill("x", 3, False)]
    kills.append(torture.Kill(torture.CHECKPOINT, 2, True))
    kills.append(torture.Kill(torture.CHECKPOINT, 1, False))
    text = torture.table(kills)
    assert "| final scores and report | 1 | 1 | 0 |" in text
    assert "| a checkpoint being written | 2 | 1 | 2 |" in text
    assert text.endswith("2 of 4")
