"""A data set that changed since its run was begun is noticed, refused, or taken knowingly."""

import json

import numpy as np
import pytest
from PIL import Image

from dasac_jax.checkpoints import store
from dasac_jax.data import sampling
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState
from dasac_jax.training import lists_record
from dasac_jax.training.workdir import Run

NAMES = ("a", "b")


def begin(run):
    """Leave a checkpoint, as a stage does."""
    zero = np.zeros(1, np.float32)
    state = TrainState(
        params=zero, batch_stats=zero, teacher=zero, class_prior=zero, opt_state=zero,
        step=np.int32(6), seed=zero,
    )  # fmt: skip
    manager = store.open_manager(run.newest("baseline"))
    store.save(manager, state, metadata={})
    store.finish(manager)


@pytest.fixture
def data(tmp_path):
    """Twenty images, and a function that lists the first so many for a role."""
    root = tmp_path / "data"
    (root / "lists").mkdir(parents=True)
    for number in range(20):
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(root / f"{number:02}.png")

    def listed(role, numbers):
        lines = (f"{number:02}.png {number:02}.png\n" for number in numbers)
        (root / f"lists/{role}.txt").write_text("".join(lines))

    for role in ("source_train", "target_train", "val"):
        listed(role, range(8))
    return listed


@pytest.fixture
def run(tiny_config, tmp_path, data):
    """run(): as a new start of the command sees it; stages: those to run."""

    def start(stages="baseline,weights,adapt"):
        config = tiny_config(
            **{
                "data.source": "custom", "data.root": str(tmp_path / "data"), "stages": stages,
                "data.lists": str(tmp_path / "data/lists"), "data.selection_images": 0,
                "data.classes.names": NAMES, "data.classes.palette": ((1, 2, 3),) * 2,
                "baseline.source_batch": 4, "adapt.source_batch": 2,
            }
        )  # fmt: skip
        return Run(config, tmp_path / "run")

    (tmp_path / "run").mkdir()
    return start


def test_the_same_lists_are_no_change(run):
    assert lists_record.check(run(), accept=False) == []
    lists_record.write(run(), [])
    begin(run())
    assert lists_record.check(run(), accept=False) == []
    stored = json.loads((run().folder / "lists.json").read_text())
    assert stored["roles"]["source_train"]["images"] == 8 and stored["changes"] == []


@pytest.mark.parametrize(
    ("role", "numbers", "words"),
    [
        ("source_train", range(16), ["source_train has 16 images, it had 8", "baseline 4, before"]),
        ("source_train", range(4), ["source_train has 4 images", "adapt 2, before 4"]),
        ("target_train", range(9), ["target_train has 9 images, it had 8"]),
        ("val", range(1, 9), ["val has 8 images as before, but others"]),
        ("source_train", range(7, -1, -1), ["in another order"]),
    ],
)
def test_a_change_is_refused_with_what_changed_and_what_to_do(run, data, role, numbers, words):
    lists_record.write(run(), [])
    begin(run())
    data(role, numbers)
    before = sorted(run().folder.iterdir())
    with pytest.raises(UserError) as caught:
        lists_record.check(run(), accept=False)
    for word in [*words, "restore the lists in", "--workdir", "--changed_data"]:
        assert word in str(caught.value)
    assert sorted(run().folder.iterdir()) == before and "\n" not in str(caught.value)


def test_before_anything_was_trained_lists_may_change(run, data):
    lists_record.write(run(), [])
    data("source_train", range(16))
    assert lists_record.check(run(), accept=False) == []


def test_runs_of_earlier_versions_go_on(run):
    begin(run())
    assert lists_record.check(run(), accept=False) == []


def test_a_change_that_is_taken_is_noted_and_makes_way(run, data, caplog):
    lists_record.write(run(), [])
    begin(run())
    images = run().open("target_train").names
    sampling.save_weights(run().weights_file, images, np.ones((8, 2), int), NAMES)
    (run().folder / "metrics.json").write_text("{}")
    data("target_train", range(9))
    changes = lists_record.check(run(), accept=True)
    assert changes == ["target_train has 9 images, it had 8"]
    lists_record.write(run(), changes)
    assert "going on with other images: target_train has 9" in caplog.text
    assert lists_record.changes(run()) == [f"{changes[0]}, at baseline step 6"]
    # The stage makes new weights, and new scores are computed.
    assert not run().weights_file.exists() and (run().folder / "weights.old.tsv").exists()
    assert not (run().folder / "metrics.json").exists()
    assert lists_record.check(run(), accept=False) == []


def test_labelled_images_that_came_later_are_scored(run, data):
    lists = run().folder.parent / "data/lists"
    (lists / "val.txt").unlink()
    lists_record.write(run(), [])
    begin(run())
    (run().folder / "metrics.json").write_text("{}")
    data("val", range(3))
    lists_record.write(run(), lists_record.check(run(), accept=False))
    assert not (run().folder / "metrics.json").exists()


def test_weights_that_fit_the_new_list_are_kept(run, data):
    lists_record.write(run(), [])
    begin(run())
    data("target_train", range(9))
    images = run().open("target_train").names
    sampling.save_weights(run().weights_file, images, np.ones((9, 2), int), NAMES)
    lists_record.write(run(), lists_record.check(run(), accept=True))
    assert run().weights_file.exists()


def test_stale_weights_need_the_stage_that_makes_them(run, data):
    lists_record.write(run(), [])
    begin(run())
    images = run().open("target_train").names
    sampling.save_weights(run().weights_file, images, np.ones((8, 2), int), NAMES)
    data("target_train", range(9))
    with pytest.raises(UserError, match=r"weights.tsv is of other .* add weights to config.stages"):
        lists_record.check(run("adapt"), accept=True)


def test_a_damaged_record_is_named(run):
    begin(run())
    (run().folder / "lists.json").write_text("[")
    with pytest.raises(UserError, match=r"cannot read .*lists.json"):
        lists_record.check(run(), accept=False)


def test_a_list_that_comes_back_has_to_be_the_one_that_went(run, data):
    lists_record.write(run(), [])
    begin(run())
    (run().folder.parent / "data/lists/val.txt").unlink()
    lists_record.write(run(), lists_record.check(run(), accept=False))
    (run().folder / "metrics.json").write_text("{}")
    data("val", range(3))
    with pytest.raises(UserError, match="val has 3 images, it had 8"):
        lists_record.check(run(), accept=False)
    data("val", range(8))
    lists_record.write(run(), lists_record.check(run(), accept=False))
    assert not (run().folder / "metrics.json").exists()  # it was written without them
