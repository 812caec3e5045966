"""The command: what it prints and writes, what it refuses, and that a run's report agrees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import compiling
import numpy as np
import pytest
from PIL import Image

from dasac_jax import evaluate

ROOT = Path(__file__).parents[1]
FILES = {"evaluation.md", "evaluation.json", "evaluation.csv", "iou.png"}


def write(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.fixture
def maps(tmp_path) -> Path:
    """Truth in `t`; predictions in `p`, half of them wrong, and in `q`, all right."""
    write(tmp_path / "t/1.png", [[0, 0, 1, 255]])
    write(tmp_path / "p/1.png", [[0, 1, 1, 0]])
    write(tmp_path / "q/1.png", [[0, 0, 1, 1]])
    return tmp_path


def ended(capsys, *arguments) -> tuple[int, str, str]:
    """How the command ends: its code, what it printed, what it said of a mistake."""
    code = 0
    try:
        evaluate.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_label_maps_are_scored_and_reported(maps, capsys):
    code, out, err = ended(
        capsys, maps / "p", "--truth", maps / "t", "--output", maps / "out"
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "mean over 2 of 13 classes" in out and "50.00" in out and "nan" in out
    assert str(maps / "out" / "evaluation.md") in out
    assert {path.name for path in (maps / "out").iterdir()} == FILES | {"confusion.png"}
    stored = json.loads((maps / "out/evaluation.json").read_text())
    (result,) = stored["results"].values()
    assert result["iou"]["road"] == 0.5 and result["iou"]["sidewalk"] == 0.5
    assert result["iou"]["car"] is None and result["pixel_accuracy"] == pytest.approx(2 / 3)
    assert stored["facts"]["truth"] == str(maps / "t")
    assert set(stored["facts"]["versions"]) == {"dasac-jax", "jax"}


def test_several_are_compared_with_the_first(maps, capsys):
    flags = ["--truth", maps / "t", "--output", maps / "out", "--class-names", "road, rest"]
    code, out, _ = ended(capsys, maps / "p", maps / "q", *flags)
    assert code == 0 and "A: p" in out and "B: q" in out and "+50.00" in out
    stored = json.loads((maps / "out/evaluation.json").read_text())
    assert stored["classes"] == ["road", "rest"] and list(stored["results"]) == ["p", "q"]
    assert stored["differences"]["q"]["iou"] == {"road": 0.5, "rest": 0.5}
    assert list(stored["means"]) == ["mean over 2 classes"]


def test_cityscapes_ids_are_read_where_flags_say_so(maps, capsys):
    write(maps / "p/1.png", [[7, 8, 8, 7]])
    output = ("--output", maps / "out")
    code, _, err = ended(capsys, maps / "p", "--truth", maps / "t", *output, "--class-names", "a,b")
    assert code == 2 and "--ids cityscapes" in err
    flags = ["--truth", maps / "t", "--ids", "cityscapes", "--truth-ids", "train", *output]
    assert ended(capsys, maps / "p", *flags)[0] == 0
    (result,) = json.loads((maps / "out/evaluation.json").read_text())["results"].values()
    assert result["iou"]["road"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["INPUT", "--help"]),
        (["p", "--wrong"], ["--wrong", "--help"]),
        (["p", "--truth", "t", "--ids", "colour"], ["--ids", "colour"]),
        (["p", "--ids", "train"], ["--ids is for label maps", "--truth"]),
        (["p", "--truth", "t", "--teacher"], ["--teacher is for checkpoints"]),
        (["p", "--truth", "t", "--batch", "2"], ["--batch is for checkpoints"]),
        (["p", "--list", "l", "--split", "val"], ["--list and --split"]),
        (["p", "--batch", "0"], ["--batch is 0"]),
        (["p", "./p", "--truth", "t"], ["p is given twice"]),
        (["p", "--truth", "t", "--class-names", "one"], ["--class-names is 'one'"]),
        (["p", "--truth", "t", "--class-names", "a,a"], ["--class-names is 'a,a'"]),
        (["p", "--truth", "t", "--class-names", ",".join(map(str, range(255)))], ["255 classes"]),
        (["p", "--truth", "t", "--class-names", "a,b", "--ids", "cityscapes"], ["19 classes"]),
        (["p", "--truth", "nowhere"], ["folder nowhere is missing"]),
        (["empty", "--truth", "t"], ["empty holds no PNG images"]),
        (["other", "--truth", "t"], ["no prediction in other", "t/1.png"]),
        (["large", "--truth", "t"], ["large/1.png has 5×1", "t/1.png has 4×1"]),
        (["broken", "--truth", "t"], ["cannot read label file broken/1.png"]),
        (["colour", "--truth", "t"], ["colour/1.png", "RGB"]),
        (["p", "--truth", "t", "--output", "t/1.png"], ["--output t/1.png cannot be written"]),
        (["nowhere"], ["no checkpoint nowhere"]),
        (["p"], ["no checkpoint in p"]),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_one_line_and_code_2(maps, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(maps)
    Path("empty").mkdir()
    write(Path("other/2.png"), [[0]])
    write(Path("large/1.png"), [[0] * 5])
    write(Path("broken/1.png"), [[0]]).write_bytes(b"")
    write(Path("colour/1.png"), np.zeros((1, 4, 3)))
    code, out, err = ended(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    for word in words:
        assert word in err
    assert not Path("evaluation").exists()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/one/adapt"], ["one/adapt"]),
        (["adapt"], ["adapt"]),
        (["/runs/one/adapt", "/runs/two/adapt"], ["one/adapt", "two/adapt"]),
        (["runs/one/adapt", "runs/one/baseline"], ["adapt", "baseline"]),
        (["runs", "runs/one"], ["runs", "runs/one"]),
    ],
)
def test_names_are_what_distinguishes_the_paths(paths, names):
    found = evaluate.named([Path(path) for path in paths])
    assert list(found) == names and [str(path) for path in found.values()] == paths


def command(*arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": compiling.xla_flags(devices=1),
    }
    return subprocess.run(
        [sys.executable, "-m", "dasac_jax.evaluate", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_a_runs_checkpoints_have_the_scores_of_its_report(whole, tmp_path, capsys):
    reported = json.loads((whole.folder / "metrics.json").read_text())
    paths = [whole.folder / "baseline", whole.folder / "adapt"]
    found = command(*paths, "--output", tmp_path / "students")
    assert found.returncode == 0, found.stderr
    # A few rendered images do not show every class.
    assert re.search(r"mean over \d+ of 16 classes", found.stdout)
    stored = json.loads((tmp_path / "students/evaluation.json").read_text())
    for name, row in (("baseline", "baseline"), ("adapt", "adapted")):
        assert stored["results"][name]["images"] == 5
        assert stored["results"][name]["iou"] == pytest.approx(reported[row]["iou"], abs=1e-3)
    assert stored["facts"]["data"] == f"val in {whole.folder / 'data'}"

    flags = ("--teacher", "--output", tmp_path / "teacher", "--batch", 4)  # as in the run
    found = command(whole.folder, *flags)
    assert found.returncode == 0, found.stderr
    (result,) = json.loads((tmp_path / "teacher/evaluation.json").read_text())["results"].values()
    assert result["facts"]["network"] == "teacher"
    assert result["iou"] == pytest.approx(reported["teacher"]["iou"], abs=1e-3)

    code, _, err = ended(capsys, paths[0], "--teacher", "--output", tmp_path / "none")
    assert code == 2 and "no trained teacher" in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_split_that_nothing_was_held_back_for_is_refused(whole, tmp_path, capsys):
    code, _, err = ended(
        capsys, whole.folder, "--split", "source_val", "--output", tmp_path / "out"
    )  # fmt: skip
    assert code == 2 and "source_val has no image" in err and "source_held_out is 0" in err
    assert not (tmp_path / "out").exists()
