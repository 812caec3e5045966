"""Labels are counted when a run starts, and classes that a sample lacks are looked for on."""

import logging

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import label_survey, sampling
from dasac_jax.errors import UserError
from dasac_jax.training import label_check
from dasac_jax.training.workdir import Run

BATCH = 4


@pytest.fixture
def run(tiny_config, tmp_path):
    """run(labels, val): ten source pairs of these label rows by number, else 1 and 2."""

    def make(labels=None, val=((1, 2),)):
        root = tmp_path / "data"
        (root / "lists").mkdir(parents=True)
        rows = {"source_train": [(labels or {}).get(i, (1, 2)) for i in range(10)], "val": val}
        for role, ids in rows.items():
            lines = []
            for number, row in enumerate(ids):
                name = f"{role}_{number}.png"
                Image.fromarray(np.array([row], np.uint8)).save(root / name)
                lines.append(f"{name} {name}\n")
            (root / f"lists/{role}.txt").write_text("".join(lines))
        values = ((1, "sky"), (2, "road"), (3, "lamp"))
        config = tiny_config(
            **{
                "data.source": "custom", "data.root": str(root), "data.lists": str(root / "lists"),
                "data.classes.names": ("sky", "road", "lamp"),
                "data.classes.palette": ((1, 2, 3),) * 3,
                "data.classes.source_ids": values, "data.classes.target_ids": values,
                "data.selection_images": 0, "data.source_size": (1, 2), "data.target_size": (1, 2),
                "baseline.source_batch": BATCH,
            }
        )  # fmt: skip
        return Run(config, tmp_path / "run")

    return make


def batches(run, first_step, num_steps):
    """The source labels of the loader's batches, in its order."""
    pairs = run.open("source_train")
    for step in range(first_step, first_step + num_steps):
        epoch, step_of_epoch = divmod(step, len(pairs) // BATCH)
        order = sampling.source_order(run.config.seed, epoch, len(pairs))
        items = order[step_of_epoch * BATCH :][:BATCH]
        yield {"source_label": np.stack([pairs[int(i)]["label"] for i in items])}


def watch(run, first_step, num_steps, unseen=(2,)):
    found = batches(run, first_step, num_steps)
    return len(list(label_check.watched(found, run, "baseline", first_step, unseen)))


def test_what_labels_hold_is_said_when_a_run_starts(run, caplog):
    caplog.set_level(logging.INFO)
    assert label_check.check(run({0: (3, 9)})) == []
    assert "source_train: its 10 label files hold 1 sky (45.0 %), 2 road (45.0 %)" in caplog.text
    assert "ignored: 9 (5.0 %)" in caplog.text
    assert "val: no pixel of lamp in 1 label files" in caplog.text


def test_a_class_that_occurs_nowhere_is_an_error(run):
    with pytest.raises(UserError, match=r"source_train: class 'lamp', label value 3, does not"):
        label_check.check(run())


@pytest.mark.parametrize("val", [((1, 9),), ((0, 255),)])
def test_a_target_id_map_of_other_values_is_an_error(run, val):
    with pytest.raises(UserError, match=r"val: .*data\.classes\.target_ids"):
        label_check.check(run({0: (3, 3)}, val))


@pytest.mark.parametrize(("ignored", "is_said"), [(4, False), (9, True)])
def test_mostly_ignored_labels_are_a_warning(run, caplog, ignored, is_said):
    labels = dict.fromkeys(range(ignored), (9, 9)) | {9: (1, 2, 3)}
    label_check.check(run(labels))
    assert ("source_train: most label pixels are ignored" in caplog.text) == is_said


def test_a_class_that_a_sample_lacks_is_only_warned_of(run, caplog, monkeypatch):
    monkeypatch.setattr(label_survey, "spread", lambda count, most: list(range(min(count, 5))))
    assert label_check.check(run({9: (3, 3)})) == [2]
    assert "source_train: no pixel of lamp in 5 label files" in caplog.text


@pytest.mark.parametrize("first_step", [0, 1])
def test_a_class_that_a_whole_epoch_lacks_ends_the_run(run, first_step):
    job = run()
    assert watch(job, first_step, 1) == 1  # no whole epoch yet
    with pytest.raises(UserError, match=r"none of the 10 labels, .* 'lamp', so nothing could"):
        watch(job, first_step, 4)
    assert watch(job, first_step, 4, unseen=()) == 4


@pytest.mark.parametrize("position", range(10))
def test_a_rare_class_is_found_wherever_it_is(run, position):
    """Among images of any batch, and among those that fill no whole one."""
    order = sampling.source_order(0, 0, 10)
    job = run({int(order[position]): (1, 3)})
    assert job.config.seed == 0 and job.steps_per_epoch("baseline") == 2
    assert watch(job, 0, 4) == 4
