"""The program as a user meets it: what a run leaves, runs again, and how mistakes end."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasac_jax import main
from dasac_jax.errors import EXIT_INTERRUPTED, UserError
from dasac_jax.reporting import start_log
from dasac_jax.runtime import lock, stop_requests

ROOT = Path(__file__).parents[1]
NEWEST = {"baseline": {10, 12}, "adapt": {5, 6}}  # steps of the checkpoints kept
SCORED = {"baseline": [4, 8, 12], "adapt": [4, 6]}  # every two epochs, and at the end
ROWS = ["source only", "baseline", "adapted", "teacher"]


def assert_refused(ended, *words):
    """Code 2 and one line on stderr, which holds the words."""
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ") and ended.err.count("error:") == 1
    assert "Traceback" not in ended.err + ended.out
    for word in words:
        assert word in ended.err


def test_leaves_configuration_log_weights_checkpoints_and_curves(whole):
    assert whole.ended.code == 0
    stored = json.loads((whole.folder / "config.json").read_text())
    assert stored["adapt.crop"] == [32, 64] and stored["demo.num_source"] == 16
    lines = (whole.folder / "weights.tsv").read_text().splitlines()
    assert len(lines) == 2 + 8
    counts = np.array([line.split("\t")[1:] for line in lines[2:]], int)
    assert counts.shape == (8, 19) and (counts.sum(1) == 48 * 96).all()
    for stage in ("baseline", "adapt"):
        steps = {int(path.name) for path in (whole.folder / stage / "checkpoints").iterdir()}
        assert steps == NEWEST[stage]
        (events,) = (whole.folder / "tensorboard" / stage).iterdir()
        assert b"selection_miou" in events.read_bytes() and b"loss_source" in events.read_bytes()
    assert not list(whole.folder.rglob("*.part"))


def test_log_has_a_plain_line_for_every_step(whole):
    lines = (whole.folder / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING) \S", x) for x in lines)
    # So short a training may lose classes, which is told.
    warnings = [x for x in lines if " WARNING " in x and "of predicted pixels" not in x]
    assert not warnings and not [x for x in lines if "\x1b" in x or "\r" in x]
    for stage, numbers in (
        ("baseline", "loss_source"),
        ("adapt", "loss_source|loss_target|labelled|teacher_distance"),
    ):
        found = [x for x in lines if f"INFO {stage} step" in x and " it/s " in x]
        last = max(NEWEST[stage])
        steps = [int(re.search(rf"step (\d+)/{last} ", x)[1]) for x in found]
        assert steps == list(range(1, last + 1))
        for line in found:
            assert re.search(r"eta \d:\d\d:\d\d", line)
            assert len(re.findall(rf" (?:{numbers}) [\d.e-]+", line)) == len(numbers.split("|"))
        scored = [x for x in lines if f"INFO {stage} step" in x and "mIoU" in x]
        assert [int(re.search(r"step (\d+): ", x)[1]) for x in scored] == SCORED[stage]


def test_ends_with_the_report(whole):
    result = json.loads((whole.folder / "metrics.json").read_text())
    assert [name for name in result if name in ROWS] == ROWS
    for name in ROWS:
        known = [x for x in result[name]["iou"].values() if x is not None]
        assert len(result[name]["iou"]) == 19
        assert result[name]["miou"] == pytest.approx(np.mean(known))
    # The same weights with two statistics, and other weights, tell different stories.
    assert len({json.dumps(result[name]) for name in ROWS[:3]}) == 3
    assert result["facts"]["steps"] == {"baseline": 12, "adapt": 6}
    assert result["facts"]["images"] == 5
    for text in (whole.ended.out, (whole.folder / "report.md").read_text()):
        for name in (*ROWS, "mean IoU"):
            assert name in text
        assert f"{100 * result['adapted']['miou']:.1f}" in text
    with Image.open(whole.folder / "report.png") as picture:
        # Four columns: image, truth, baseline, adapted; four of the five images.
        assert picture.width >= 4 * 96 and picture.height >= 4 * 48


def test_again_prints_the_report_at_once(whole, command, tiny, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    before = (folder / "train.log").read_text()
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    ended = command(*tiny(folder, log_every_steps=7))
    assert ended.code == 0, ended.err
    assert "mean IoU" in ended.out and "teacher" in ended.out
    added = (folder / "train.log").read_text().removeprefix(before)
    lines = [line.split(" INFO ")[1] for line in added.splitlines()]
    roles = [line.partition(": its ")[0] for line in lines[:3]]
    assert roles == ["source_train", "selection", "val"]  # what the labels hold
    assert lines[3:] == [
        "baseline: resuming after step 12",
        "baseline: complete at step 12",
        "adapt: resuming after step 6",
        "adapt: complete at step 6",
    ]
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != files.get(path)}
    assert changed <= {"config.json", "train.log", "lock", "runs.jsonl"}


def test_unknown_key_is_refused_with_the_closest(called, tiny, tmp_path):
    ended = called(*tiny(tmp_path / "run", adapt__lerning_rate=1))
    assert_refused(ended, "config.adapt.lerning_rate", "closest is --config.adapt.learning_rate")
    assert ended.err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_missing_data_is_named_at_once(called, tmp_path):
    folder, data = tmp_path / "run", tmp_path / "none"
    flags = ["--config", "configs/gta_r101.py", "--workdir", str(folder)]
    ended = called(*flags, f"--config.data.root={data}", f"--config.init={data}/imagenet")
    assert_refused(ended)
    lines = ended.err.splitlines()[1:]
    assert [(line.split(":")[0].strip()) for line in lines] == [
        f"{data}/game/images",
        f"{data}/game/labels_cs",
        f"{data}/cityscapes/leftImg8bit/train",
        f"{data}/cityscapes/leftImg8bit/val",
        f"{data}/cityscapes/gtFine2/val",
        f"{data}/cityscapes/gtFine2/train",
        f"{data}/imagenet",
    ]
    for line, origin in zip(
        lines, [*["Playing for Data"] * 2, *["www.cityscapes"] * 4, "download.pytorch.org"],
        strict=True,
    ):  # fmt: skip
        assert origin in line, line
    assert not folder.exists()


def test_a_batch_that_devices_do_not_divide_is_refused_before_training(called, tiny, tmp_path):
    # Of the adaptation: it must not take the baseline's training to find out.
    ended = called(*tiny(tmp_path / "run", adapt__groups=1))  # on the eight simulated devices
    assert_refused(ended, "config.adapt", "8 devices", "1 groups of 4", "work: 1, 2, 4 (")
    assert ended.err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_corrupt_target_image_is_named(whole, called, tiny, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder / "data", folder / "data")
    for image in (folder / "data/cityscapes/leftImg8bit/train").rglob("*.png"):
        image.write_bytes(image.read_bytes()[:200])
    flags = tiny(folder, stages="baseline", data__selection_images=0)
    ended = called(*flags)
    assert_refused(ended, f"{folder}/data/cityscapes/leftImg8bit/train/", ".png")
    assert ended.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused(called, tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    ended = called(*tiny(tmp_path / "file" / "run"))
    assert_refused(ended, str(tmp_path / "file"), "--workdir")
    assert ended.err.count("\n") == 1
    ended = called(*tiny(tmp_path / "file"))
    assert_refused(ended, str(tmp_path / "file"), "--workdir")


def test_flags_are_needed(called, command):
    ended = called("--config", "configs/demo.py")
    assert_refused(ended, "--workdir is missing")
    ended = command("--workdir", "nowhere")
    assert_refused(ended, "--config is missing")


def test_run_refuses_what_cannot_work_and_leaves_the_folder_free(whole, tiny_config, tmp_path):
    shutil.copytree(whole.folder / "data", tmp_path / "data")
    config = tiny_config(adapt__source_batch=24)
    with pytest.raises(UserError, match=r"config\.adapt\.source_batch is 24.* only 16 source"):
        main.run(config, tmp_path)
    assert not (tmp_path / "config.json").exists()
    # So that the same folder works with the mistake mended; here up to the next one.
    config = tiny_config(baseline__source_batch=32, baseline__target_batch=16)
    with pytest.raises(UserError, match=r"config\.baseline\.source_batch is 32"):
        main.run(config, tmp_path)


def test_run_refuses_an_adaptation_without_a_baseline(tiny_config, tmp_path):
    with pytest.raises(UserError, match="run stage baseline first") as caught:
        main.run(tiny_config(stages="adapt"), tmp_path / "run")
    assert str(tmp_path / "run/baseline/checkpoints") in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_time_limit_ends_the_rendering_too(tiny_config, tmp_path):
    config = tiny_config(max_minutes=1e-6)
    with pytest.raises(stop_requests.Stopped, match=r"^the time limit of 1e-06 minutes$"):
        main.run(config, tmp_path / "run")
    assert len(start_log.read(tmp_path / "run")) == 1
    assert not (tmp_path / "run/data/demo.json").exists()
    stop_requests.check()


def test_a_folder_in_use_is_refused(tiny_config, tmp_path):
    with lock.held(tmp_path), pytest.raises(UserError, match="is in use by process"):
        main.run(tiny_config(), tmp_path)
    assert start_log.read(tmp_path) == [] and not (tmp_path / "data").exists()


def test_ctrl_c_twice_ends_at_once(tiny, tmp_path):
    code = (
        "import os, signal, sys, threading, time\n"
        "from absl import app\n"
        "from dasac_jax import main, recipe_flags\n"
        "def run(*_, **options):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"  # a checkpoint, say
        "    for _ in range(2):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "main.run = run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "app.run(main.main, flags_parser=recipe_flags.parse_flags)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *tiny(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ended.returncode == EXIT_INTERRUPTED == 130, ended.stderr
    assert "the same command goes on from the last checkpoint" in ended.stderr
