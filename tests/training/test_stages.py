"""Whole runs against each other: in pieces, interrupted, without labels."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from run_fixtures import SMALL
from tensorboardX.proto.event_pb2 import Event

from dasac_jax import main
from dasac_jax.checkpoints import store
from dasac_jax.errors import EXIT_RESUME, UserError
from dasac_jax.reporting import metrics_log, start_log, training_curves
from dasac_jax.training import stages, workdir

SMALL_ARRAYS = 30  # what the small network has at least, with teacher and momentum
STATE = ("params", "batch_stats", "teacher", "class_prior", "opt_state", "step", "seed")


def state_of(folder, stage):
    """The arrays of a stage's newest checkpoint by name."""
    arrays, _ = store.read(folder / stage / "checkpoints")
    assert set(arrays) == set(STATE)
    return flatten_dict(arrays, sep="/")


def assert_same_bits(ours, theirs, stage, least=100):
    """All arrays of the newest checkpoints are equal; at least so many, as a network has many."""
    ours, theirs = state_of(ours, stage), state_of(theirs, stage)
    assert ours.keys() == theirs.keys() and len(ours) > least
    for name, array in theirs.items():
        assert ours[name].tobytes() == array.tobytes(), name


def steps_logged(folder, stage):
    lines = (folder / "train.log").read_text().splitlines()
    found = [re.search(rf"INFO {stage} step (\d+)/\d+ .*loss_source", line) for line in lines]
    return [int(match[1]) for match in found if match]


def scalars(folder, stage):
    """{tag: values in the order of steps} of a stage's event files, pictures left out."""
    points = {}
    for path in sorted((folder / "tensorboard" / stage).iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                if not value.HasField("image"):
                    points.setdefault(value.tag, {})[event.step] = value.simple_value
            content = content[16 + length :]
    return {tag: [by_step[step] for step in sorted(by_step)] for tag, by_step in points.items()}


@pytest.fixture(scope="module")
def pieces(small_whole, command, tiny, once):
    """The small run once more: stopped by Ctrl-C in its baseline, killed in its adaptation, ended.

    The baseline is asked for alone at first, and the other stages at last. How each of the three
    commands ended is kept.
    """

    def make(folder):
        run = folder / "run"
        shutil.copytree(small_whole.folder / "data", run / "data")
        ctrl_c = ("interrupt", "baseline", "9", str(int(signal.SIGINT)))
        kill = ("interrupt", "adapt", "6", str(int(signal.SIGKILL)))
        parts = [
            (tiny(run, stages="baseline", **SMALL), ctrl_c),
            (tiny(run, **SMALL), kill),
            (tiny(run, stages="weights,adapt", **SMALL), ()),
        ]
        ends = []
        for flags, hook in parts:
            ended = command(*flags, hook=hook, small=True)
            steps = {stage: steps_logged(run, stage) for stage in ("baseline", "adapt")}
            ends.append({"code": ended.code, "err": ended.err, "steps": steps})
        (folder / "ends.json").write_text(json.dumps(ends))

    folder = once("pieces", make)
    return folder / "run", json.loads((folder / "ends.json").read_text())


def test_ctrl_c_ends_with_its_code_and_says_how_to_go_on(pieces):
    _, ends = pieces
    assert ends[0]["code"] == EXIT_RESUME == 75
    assert ends[0]["err"].splitlines() == [
        "SIGINT: finishing the step and saving; once more quits at once",
        "stopped by SIGINT (after baseline step 9): all is saved, the same command goes on",
    ]
    assert ends[0]["steps"] == {"baseline": [*range(1, 9)], "adapt": []}


def test_going_on_after_a_stop_repeats_nothing(pieces):
    _, ends = pieces
    assert ends[1]["code"] == -signal.SIGKILL
    assert ends[1]["steps"] == {"baseline": [*range(1, 13)], "adapt": [*range(1, 6)]}


def test_going_on_after_a_kill_ends_the_run(pieces):
    _, ends = pieces
    assert ends[2]["code"] == 0, ends[2]["err"]
    assert ends[2]["steps"]["baseline"] == ends[1]["steps"]["baseline"]
    assert ends[2]["steps"]["adapt"][-1] == 6


def test_pieces_make_the_bits_of_the_whole(pieces, small_whole):
    folder, _ = pieces
    assert_same_bits(folder, small_whole.folder, "baseline", SMALL_ARRAYS)
    assert_same_bits(folder, small_whole.folder, "adapt", SMALL_ARRAYS)
    ours, theirs = (path / "weights.tsv" for path in (folder, small_whole.folder))
    assert ours.read_text() == theirs.read_text()
    ours, theirs = (
        json.loads((path / "metrics.json").read_text()) for path in (folder, small_whole.folder)
    )
    for name in ("source only", "baseline", "adapted", "teacher"):
        assert ours[name] == theirs[name]


def test_pieces_record_the_steps_of_the_whole(pieces, small_whole):
    folder, _ = pieces
    ours, theirs = metrics_log.read(folder), metrics_log.read(small_whole.folder)
    expected = [("baseline", step) for step in range(1, 13)]
    expected += [("adapt", step) for step in range(1, 7)]
    assert [(line["stage"], line["step"]) for line in theirs] == expected
    # Bit for bit, although some steps were done twice.
    assert [{**line, "seconds": 0} for line in ours] == [{**line, "seconds": 0} for line in theirs]
    ours, theirs = (metrics_log.pictures(path) for path in (folder, small_whole.folder))
    assert [entry[:3] for entry in ours] == [entry[:3] for entry in theirs]
    for (*_, mine), (*_, path) in zip(ours, theirs, strict=True):
        assert mine.read_bytes() == path.read_bytes()


def test_every_start_is_recorded(pieces, small_whole):
    folder, _ = pieces
    stages_of = [line["config"]["stages"] for line in start_log.read(folder)]
    assert stages_of == ["baseline", "baseline,weights,adapt", "weights,adapt"]
    assert "<td>3, the last at " in (folder / "report.html").read_text()
    (line,) = start_log.read(small_whole.folder)
    assert "--workdir" in line["command"] and line["config"]["adapt.crop"] == [32, 64]


def test_what_is_recorded_is_what_the_checkpoint_holds(whole):
    lines = metrics_log.read(whole.folder)
    steps, priors = metrics_log.curve(lines, "adapt", "class_prior")
    assert steps.tolist() == [1, 2, 3, 4, 5, 6] and priors.shape == (6, 19)
    last = state_of(whole.folder, "adapt")["class_prior"]
    np.testing.assert_array_equal(priors[-1].astype(np.float32), last)
    assert not np.array_equal(priors[0], priors[-1])
    steps, thresholds = metrics_log.curve(lines, "adapt", "thresholds")
    assert steps.tolist() == [4, 6] and np.nanmin(thresholds) >= np.float32(0.1)
    assert metrics_log.curve(lines, "baseline", "class_prior")[0].size == 0
    assert not (whole.folder / ".metrics.jsonl.part").exists()


def test_each_validation_leaves_pictures_and_curves(whole):
    found = [entry[:3] for entry in metrics_log.pictures(whole.folder)]
    assert found == [
        *[("adapt", step, name) for step in (4, 6) for name in ("selection", "views")],
        *[("baseline", step, "selection") for step in (4, 8, 12)],
    ]
    drawn = {path.stem for path in (whole.folder / "curves").iterdir()}
    assert drawn == set(training_curves.TITLES)
    assert (whole.folder / "report.html").stat().st_size > 100_000


def test_without_validation_there_are_curves_and_a_page(unlabelled):
    assert metrics_log.pictures(unlabelled.folder) == []
    drawn = {path.stem for path in (unlabelled.folder / "curves").iterdir()}
    assert drawn == set(training_curves.TITLES) - {"selection_miou", "thresholds"}
    assert "Curves" in (unlabelled.folder / "report.html").read_text()


def test_all_of_the_state_has_moved(whole):
    # Else equal bits would say little.
    baseline, adapt = (state_of(whole.folder, stage) for stage in ("baseline", "adapt"))
    assert baseline["step"] == 12 and adapt["step"] == 6
    for name in ("params", "batch_stats", "class_prior", "teacher", "opt_state"):
        moved = [
            not np.array_equal(adapt[key], baseline[key])
            for key in adapt
            if key.split("/")[0] == name
        ]
        # The adaptation keeps the running statistics.
        assert any(moved) == (name != "batch_stats"), name
    apart = [
        not np.array_equal(value, adapt[key.removeprefix("teacher/")])
        for key, value in adapt.items()
        if key.startswith("teacher/params")
    ]
    assert all(apart)
    points = scalars(whole.folder, "adapt")
    assert all(0 < value < 1 for value in points["adapt/labelled"])
    assert all(value > 0 for value in points["adapt/loss_target"])


def test_no_target_label_is_read_in_training(unlabelled, small_whole):
    assert not list(unlabelled.folder.parent.glob("data/cityscapes/*/train/*/*labelIds.png"))
    assert not (unlabelled.folder / "baseline" / "best" / "4").exists()
    assert "mIoU" not in (unlabelled.folder / "train.log").read_text()
    for stage in ("baseline", "adapt"):
        assert_same_bits(unlabelled.folder, small_whole.folder, stage, SMALL_ARRAYS)
    ours, theirs = (run.folder / "weights.tsv" for run in (unlabelled, small_whole))
    assert ours.read_text() == theirs.read_text()


def test_an_adaptation_without_epochs_is_refused_and_claims_nothing(whole, tiny_config, tmp_path):
    shutil.copytree(whole.folder / "baseline", tmp_path / "baseline")
    config = tiny_config(adapt__epochs=6, stages="adapt", data__root=str(whole.folder / "data"))
    with pytest.raises(UserError, match=r"config\.adapt\.epochs is 6, .* before took 6, .* more"):
        main.run(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_an_adaptation_without_weights_warns(whole, tiny_config, tmp_path, monkeypatch, caplog):
    shutil.copytree(whole.folder / "baseline", tmp_path / "baseline")
    config = tiny_config(stages="adapt", data__root=str(whole.folder / "data"))
    monkeypatch.setattr(stages, "_train", lambda *_: None)
    stages.run_adapt(workdir.open_run(config, tmp_path))
    told = f"there is no {tmp_path}/weights.tsv: target images are drawn uniformly"
    assert told in caplog.text


def test_weights_of_other_images_are_refused(whole, tiny_config, tmp_path):
    shutil.copytree(whole.folder / "baseline", tmp_path / "baseline")
    lines = (whole.folder / "weights.tsv").read_text().splitlines()
    (tmp_path / "weights.tsv").write_text("\n".join(lines[:-1]) + "\n")
    config = tiny_config(stages="weights", data__root=str(whole.folder / "data"))
    with pytest.raises(UserError, match=r"weights\.tsv lack 1 of the 8"):
        main.run(config, tmp_path)


def test_an_unknown_network_is_refused_before_anything_is_rendered(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"config\.arch: .*'deeplab'"):
        main.run(tiny_config(arch="deeplab"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_stage_has_a_runner():
    assert tuple(stages.RUNNERS) == ("baseline", "weights", "adapt")
