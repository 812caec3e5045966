"""Checkpoints are found, checked and used, from wherever in a run's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import dasac_jax
from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.data.labels import CLASS_NAMES, palette
from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.inference import trained_network
from dasac_jax.method.steps import predict_step

ROOT = Path(__file__).parents[2]
ARCH = "deeplabv2_demo"


@struct.dataclass
class State:
    params: Any
    batch_stats: Any
    teacher: Any
    step: Any


@pytest.fixture(scope="module")
def variables():
    """Of a student and of a teacher that differ."""
    model = models.create_model(ARCH)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))

    def fill(seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: rng.uniform(0.02, 0.1, x.shape).astype(np.float32), shapes)

    return {"student": fill(0), "teacher": fill(1)}


@pytest.fixture(scope="module")
def save(variables):
    def write(folder, *steps, stage="adapt", variables=variables, **facts):
        facts = {"arch": ARCH, "num_classes": 19, "stage": stage} | facts
        facts = {key: value for key, value in facts.items() if value is not None}
        manager = store.open_manager(folder, keep=9)
        for step in steps:
            student = jax.tree.map(lambda x, step=step: x * np.float32(step), variables["student"])
            state = State(**student, teacher=variables["teacher"], step=np.int32(step))
            store.save(manager, state, metadata=facts)
        store.finish(manager)
        return folder

    return write


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory, save):
    """A run's folder: newest and best states of both stages."""
    folder = tmp_path_factory.mktemp("saved")
    for stage, best, newest in (("baseline", 1, 2), ("adapt", 3, 4)):
        save(folder / stage / "checkpoints", newest, stage=stage)
        save(folder / stage / "best", best, stage=stage)
    return folder


@pytest.fixture
def run(tmp_path, saved_run):
    """A copy of it."""
    return shutil.copytree(saved_run, tmp_path / "run")


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_every_folder_that_a_run_has(run, variables):
    for path, step in {
        "": 3, "adapt": 3, "adapt/best": 3, "adapt/checkpoints": 4, "adapt/checkpoints/4": 4,
        "baseline": 1, "baseline/checkpoints": 2,
    }.items():  # fmt: skip
        model, networks, facts = trained_network.open_checkpoint(run / path)
        assert facts["step"] == step and facts["arch"] == ARCH
        same(networks["student"]["params"]["conv1"]["kernel"],
             variables["student"]["params"]["conv1"]["kernel"] * step)  # fmt: skip
        assert model.num_classes == 19
    (run / "config.json").write_text(json.dumps({"select": "last"}))
    assert trained_network.open_checkpoint(run)[2]["step"] == 4
    assert trained_network.open_checkpoint(run / "baseline")[2]["step"] == 2
    (run / "config.json").write_text(json.dumps({"select": "best"}))
    assert trained_network.open_checkpoint(run)[2]["step"] == 3
    shutil.rmtree(run / "adapt" / "best")
    assert trained_network.open_checkpoint(run)[2]["step"] == 4
    shutil.rmtree(run / "adapt")
    assert trained_network.open_checkpoint(run)[2]["step"] == 1


def test_a_best_that_is_not_whole_is_named(run, caplog):
    (run / "adapt" / "best" / "3" / "files.json").unlink()
    assert trained_network.open_checkpoint(run)[2]["step"] == 4
    assert "adapt/best/3 is not whole and is passed over" in caplog.text


def test_one_step_beside_newer_ones(tmp_path, save):
    save(tmp_path, 1, 2, 3)
    assert trained_network.open_checkpoint(tmp_path)[2]["step"] == 3
    assert trained_network.open_checkpoint(tmp_path / "2")[2]["step"] == 2
    shutil.rmtree(tmp_path / "2" / "state" / "d")
    with pytest.raises(UserError, match=r"/2 is damaged"):
        trained_network.open_checkpoint(tmp_path / "2")


def test_the_teacher_is_that_of_the_adaptation(run, variables):
    _, networks, _ = trained_network.open_checkpoint(run)
    same(networks["teacher"], variables["teacher"])
    assert trained_network.choose(networks, run, teacher=True) is networks["teacher"]
    assert trained_network.choose(networks, run) is networks["student"]
    _, networks, _ = trained_network.open_checkpoint(run / "baseline")
    with pytest.raises(UserError, match="baseline has no trained teacher"):
        trained_network.choose(networks, run / "baseline", teacher=True)


def test_compute_type_of_the_run(tmp_path, save):
    assert trained_network.open_checkpoint(save(tmp_path / "a", 1))[0].dtype == jnp.float32
    half = save(tmp_path / "b", 1, dtype="bfloat16")
    assert trained_network.open_checkpoint(half)[0].dtype == jnp.bfloat16


def test_no_checkpoint(tmp_path, run):
    with pytest.raises(UserError, match=r"there is no checkpoint .*gone"):
        trained_network.open_checkpoint(tmp_path / "gone")
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"weights\.pth is a file: give a folder .* has made of a"):
        trained_network.open_checkpoint(tmp_path / "weights.pth")
    with pytest.raises(UserError, match="there is no checkpoint in"):
        trained_network.open_checkpoint(tmp_path)
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        trained_network.open_checkpoint(run)
    (tmp_path / "seeds" / "seed3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"for each of the seeds 3: give one .*seeds/seed3"):
        trained_network.open_checkpoint(tmp_path / "seeds")


def test_foreign_facts(tmp_path, save):
    for i, (facts, words) in enumerate([
        ({"arch": None}, "does not say its arch"),
        ({"num_classes": None}, "does not say its num_classes"),
        ({"arch": "unheard_of"}, "unknown network.*unheard_of"),
    ]):  # fmt: skip
        with pytest.raises(UserError, match=words):
            trained_network.open_checkpoint(save(tmp_path / str(i), 1, **facts))


def test_layers_that_were_never_trained_are_named(tmp_path, save, caplog):
    trained_network.open_checkpoint(save(tmp_path / "trained", 1))
    assert not caplog.records
    trained_network.open_checkpoint(save(tmp_path / "drawn", 1, drawn=["params/layer5/0/kernel"]))
    assert "params/layer5/0/kernel comes from no training" in caplog.text


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_numbers_that_are_not_finite_are_named(tmp_path, save, variables, which):
    broken = jax.tree.map(np.copy, variables)
    broken[which]["params"]["conv1"]["kernel"][0, 0, 0, :3] = np.nan
    words = rf"holds {which}'s params/conv1/kernel with 3 of \d+ numbers not finite"
    with pytest.raises(UserError, match=words):
        trained_network.open_checkpoint(save(tmp_path / "nan", 1, variables=broken))
    broken = jax.tree.map(np.copy, variables)
    broken[which]["batch_stats"]["bn1"]["var"][2] = -1
    with pytest.raises(UserError, match=rf"holds {which}'s batch_stats/bn1/var with a negative"):
        trained_network.open_checkpoint(save(tmp_path / "negative", 1, variables=broken))


def test_results_that_are_not_finite_are_refused(tmp_path, save, variables, images):
    huge = jax.tree.map(np.copy, variables)
    for name in ("0", "1"):
        huge["student"]["params"]["layer5"][name]["kernel"][:] = 3e38
    network = trained_network.load(save(tmp_path / "huge", 1, variables=huge))
    with pytest.raises(UserError, match=r"results for 1 images are not finite \(\d+ % of"):
        network.predict(images[:1])


def test_names_or_colours_that_are_not_as_many_as_the_classes(tmp_path, save):
    for key, value in {"class_names": ["sea", "land"], "palette": [[0, 0, 0]]}.items():
        words = rf"has 19 classes, but says {key} of {len(value)}"
        with pytest.raises(UserError, match=words):
            trained_network.open_checkpoint(save(tmp_path / key, 1, **{key: value}))


def test_arrays_of_another_network(tmp_path, save, variables):
    with pytest.raises(UserError, match=r"student .* holds params/layer5/0/bias \(19,\).*\(5,\)"):
        trained_network.open_checkpoint(save(tmp_path / "a", 1, num_classes=5))
    with pytest.raises(UserError, match=r"lacks .*; and [0-9]+ more"):
        trained_network.open_checkpoint(save(tmp_path / "b", 1, arch="deeplabv2_resnet101"))
    teacher = {"params": variables["teacher"]["params"], "batch_stats": {}}
    with pytest.raises(UserError, match=r"teacher .* lacks batch_stats"):
        trained_network.open_checkpoint(
            save(tmp_path / "c", 1, variables=variables | {"teacher": teacher})
        )


def test_names_and_colours_of_classes():
    assert trained_network.class_names({"num_classes": 19}) == CLASS_NAMES
    assert trained_network.class_names({"num_classes": 2}) == ("class 0", "class 1")
    given = {"num_classes": 2, "class_names": ["sea", "land"], "palette": [[1, 2, 3], [4, 5, 6]]}
    assert trained_network.class_names(given) == ("sea", "land")
    np.testing.assert_array_equal(trained_network.class_palette(given), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(
        trained_network.class_palette({"num_classes": 19}), palette()[:19]
    )
    for count in (2, 25, 254):
        colours = trained_network.class_palette({"num_classes": count})
        assert colours.shape == (count, 3) and colours.dtype == np.uint8
        np.testing.assert_array_equal(colours[:19], palette()[: min(count, 19)])
        assert len(np.unique(colours[19:], axis=0)) == max(0, count - 19)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 48, 3), np.uint8)


def test_load_and_predict(tmp_path, save, variables, images):
    """A batch that is larger than the devices, one image, the teacher."""
    folder = save(tmp_path, 1)
    network = dasac_jax.load(folder)
    labels, confidence = network.predict(images)
    assert (labels.shape, labels.dtype) == ((11, 40, 48), np.uint8)
    assert (confidence.shape, confidence.dtype) == ((11, 40, 48), np.float32)
    expected = predict_step(
        variables["student"], normalise(images), model=models.create_model(ARCH)
    )
    np.testing.assert_allclose(confidence, expected[1], atol=1e-5)
    assert (labels == expected[0]).mean() > 0.999
    one = network.predict(images[7])
    np.testing.assert_array_equal(one[0], labels[7])
    np.testing.assert_allclose(one[1], confidence[7], atol=1e-5)
    assert network.class_names == CLASS_NAMES and network.palette.shape == (19, 3)
    assert network.facts["step"] == 1
    teacher = dasac_jax.load(folder, teacher=True).predict(images[7])
    assert np.abs(teacher[1] - one[1]).max() > 1e-3


def test_predict_from_many_threads(tmp_path, save, images):
    network = dasac_jax.load(save(tmp_path, 1))
    work = [images[i, : 40 - 8 * (i % 2)] for i in range(11)] * 3
    expected = [network.predict(image) for image in work[:11]] * 3
    network = dasac_jax.load(tmp_path)  # nothing compiled yet
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(network.predict, work))
    for (labels, confidence), (labels_alone, confidence_alone) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(labels, labels_alone)
        np.testing.assert_array_equal(confidence, confidence_alone)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((1, 1, 4, 5, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((0, 4, 5, 3), np.uint8),
    ],
    ids=str,
)
def test_arrays_that_are_no_images(images):
    network = object.__new__(trained_network.Network)
    with pytest.raises(UserError, match="array"):
        network.predict(images)


def test_importing_the_package_imports_no_jax():
    program = "import sys, dasac_jax; print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
