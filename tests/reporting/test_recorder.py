"""A stage's numbers survive restarts and full disks; its pictures lie in the run's folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import classes
from dasac_jax.errors import UserError
from dasac_jax.reporting import metrics_log, training_curves
from dasac_jax.reporting.recorder import Recorder

CLASSES = classes.own(("road", "sky"), ((9, 0, 0), (0, 0, 200)))
PICTURE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def record(folder, stage, steps, first_step=0, **options):
    """What a recorder writes of some steps; the values of a step are its number."""
    with Recorder(folder, stage, first_step, CLASSES, **options) as recorder:
        for step in steps:
            recorder.add(step, {"loss_source": step, "class_prior": np.array([step, np.nan])})


def without_seconds(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [{**json.loads(line), "seconds": None} for line in text.splitlines()]


def test_a_line_holds_all_values_of_a_step(tmp_path):
    record(tmp_path, "adapt", [50, 100])
    first, second = (tmp_path / "metrics.jsonl").read_text().splitlines()
    line = json.loads(second)
    assert json.loads(first)["step"] == 50
    assert line.pop("seconds") >= 0
    assert line == {
        "stage": "adapt",
        "step": 100,
        "values": {"loss_source": 100.0, "class_prior": [100.0, None]},
    }
    steps, values = metrics_log.curve(metrics_log.read(tmp_path), "adapt", "class_prior")
    assert steps.tolist() == [50, 100] and values[:, 0].tolist() == [50, 100]
    assert np.isnan(values[:, 1]).all()
    assert metrics_log.curve(metrics_log.read(tmp_path), "baseline", "class_prior")[0].size == 0


def test_a_restart_leaves_no_gap_and_no_double(tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for folder in (whole, pieces):
        folder.mkdir()
        record(folder, "baseline", range(1, 9))
    record(whole, "adapt", range(1, 13))
    # Killed after step 9, its last checkpoint at step 5; then again before anything was logged.
    record(pieces, "adapt", range(1, 10))
    with open(pieces / "metrics.jsonl", "a") as file:
        file.write('{"stage": "adapt", "step": 10, "val')
    record(pieces, "adapt", [], first_step=5)
    assert [line["step"] for line in metrics_log.read(pieces)][8:] == [1, 2, 3, 4, 5]
    record(pieces, "adapt", range(6, 13), first_step=5)
    assert without_seconds(pieces) == without_seconds(whole)


def test_starting_over_forgets_the_stage_alone(tmp_path):
    record(tmp_path, "baseline", [1, 2])
    record(tmp_path, "adapt", [1, 2])
    record(tmp_path, "adapt", [1])
    lines = [(line["stage"], line["step"]) for line in metrics_log.read(tmp_path)]
    assert lines == [("baseline", 1), ("baseline", 2), ("adapt", 1)]


def test_pictures_and_curves_lie_in_the_work_directory(tmp_path):
    with Recorder(tmp_path, "adapt", 0, CLASSES) as recorder:
        recorder.add(400, {"selection_miou": 0.5}, {"views": PICTURE, "selection": PICTURE})
    assert (tmp_path / "curves" / "selection_miou.png").exists()
    path = tmp_path / "pictures" / "adapt_000400_views.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), PICTURE)
    found = metrics_log.pictures(tmp_path)
    assert [entry[:3] for entry in found] == [
        ("adapt", 400, "selection"),
        ("adapt", 400, "views"),
    ]
    assert found[1][3] == path
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard" / "adapt").iterdir())
    assert b"adapt/views" in events and b"adapt/selection_miou" in events


def test_tensorboard_has_a_curve_for_each_class(tmp_path):
    record(tmp_path, "adapt", [50])
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard" / "adapt").iterdir())
    assert b"adapt/class_prior/road" in events
    assert b"adapt/class_prior/sky" not in events  # it has no value


def test_other_processes_write_nothing(tmp_path):
    with Recorder(tmp_path, "adapt", 0, CLASSES, enabled=False) as recorder:
        recorder.add(1, {"loss_source": 1.0}, {"views": PICTURE})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_pictures_bring_new_curves_every_half_minute_and_the_end_does(tmp_path, monkeypatch):
    now, drawn = [1000.0], []
    monkeypatch.setattr("dasac_jax.reporting.recorder.time.monotonic", lambda: now[0])

    def draw(*_):
        drawn.append(now[0])
        return {"losses": str(now[0]).encode()}

    monkeypatch.setattr(training_curves, "draw", draw)
    with Recorder(tmp_path, "adapt", 0, CLASSES) as recorder:
        for step, now[0] in enumerate((1010, 1031, 1032, 1033, 1065, 1070), start=1):
            recorder.add(step, {"loss_source": 1.0}, {} if step == 2 else {"views": PICTURE})
        # Already before the end: a run may take days.
        assert (tmp_path / "curves" / "losses.png").read_bytes() == b"1065"
    assert drawn == [1032, 1065, 1070]


def test_no_curve_is_drawn_on_the_way_out_of_a_mistake(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        Recorder(tmp_path, "adapt", 0, CLASSES) as recorder,
    ):
        recorder.add(1, {"loss_source": 1.0})
        raise KeyboardInterrupt
    assert len(metrics_log.read(tmp_path)) == 1 and not (tmp_path / "curves").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl"):
        Recorder(tmp_path / "file", "adapt", 0, CLASSES)


def test_a_full_disk_loses_no_number(tmp_path, small_files, caplog):
    with Recorder(tmp_path, "adapt", 0, CLASSES) as recorder:
        recorder.add(1, {"loss_source": 1})
        path = tmp_path / "metrics.jsonl"
        written = path.read_bytes()
        small_files(len(written) + 20)  # half of a line
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        recorder.add(2, {"loss_source": 2}, {"views": noise})
        assert path.read_bytes() == written
        assert not recorder.flush()
        assert f"cannot write {path}: " in caplog.text and "_views.png: " in caplog.text
        small_files(0)
        recorder.add(3, {"loss_source": 3})
        assert recorder.flush()
    assert [line["values"]["loss_source"] for line in metrics_log.read(tmp_path)] == [1, 2, 3]
    assert not list(tmp_path.rglob("*.part"))


def test_numbers_that_never_reached_the_disk_are_an_error(tmp_path, small_files):
    with (
        pytest.raises(UserError, match=r"metrics.jsonl; checkpoints are kept: make room"),
        Recorder(tmp_path, "adapt", 0, CLASSES) as recorder,
    ):
        small_files(10)
        recorder.add(1, {"loss_source": 1})
