"""Scores of label maps are the official evaluation's; those of checkpoints are known beforehand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as official  # noqa: N813
import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.labels import CLASS_NAMES, CLASSES, train_ids
from dasac_jax.errors import UserError
from dasac_jax.evaluation import scored_data
from dasac_jax.evaluation import scores as evaluation
from dasac_jax.evaluation.scores import Result, means, scores

RNG = np.random.default_rng(0)
BUS, TRAIN, BICYCLE, TRUCK = 28, 31, 33, 27  # Cityscapes ids


def write(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.fixture
def cityscapes(tmp_path):
    """Truth and predictions in Cityscapes ids: with errors, ignored regions, and classes of
    which one is nowhere, one is predicted only, one is predicted on ignored pixels only, and one
    is there and never predicted."""
    for index, city in enumerate(("aachen", "bonn", "bonn")):
        truth = np.kron(RNG.integers(0, 34, (8, 6)), np.ones((5, 5), int))
        truth[np.isin(truth, (BUS, TRAIN, TRUCK))] = 4
        wrong = RNG.random(truth.shape) < 0.4
        guess = np.where(wrong, RNG.integers(0, 34, truth.shape), truth)
        guess[np.isin(guess, (TRAIN, TRUCK, BICYCLE))] = 0
        truth[0, :2], guess[0, :2] = (4, 7), (TRUCK, BUS)
        name = f"{city}_{index:06}_000019"
        write(tmp_path / "gt" / city / f"{name}_gtFine_labelIds.png", truth)
        write(tmp_path / "gt" / city / f"{name}_gtFine_color.png", truth)
        write(tmp_path / "results" / "any" / f"{name}_mine.png", guess)
    return tmp_path / "results", tmp_path / "gt"


def official_scores(predictions: Path, truth: Path) -> tuple[dict[str, float], float, dict]:
    """What cityscapesscripts says of the same files: IoU by class, their mean, everything."""
    args = official.CArgs()
    vars(args).update(vars(official.args))
    args.evalInstLevelScore = args.JSONOutput = False
    args.quiet = True
    args.predictionPath, args.predictionWalk = str(predictions), None
    truths = [str(path) for path in sorted(truth.rglob("*_gtFine_labelIds.png"))]
    found = [official.getPrediction(args, path) for path in truths]
    result = official.evaluateImgLists(found, truths, args)
    return (
        {name: result["classScores"][name] for name in CLASS_NAMES},
        result["averageScoreClasses"],
        result,
    )


def same(ours: float, theirs: float) -> bool:
    return (math.isnan(ours) and math.isnan(theirs)) or abs(ours - theirs) <= 1e-12


def test_numbers_are_those_of_the_official_evaluation(cityscapes):
    theirs, average, everything = official_scores(*cityscapes)
    result = evaluation.of_folder("mine", *cityscapes, ids="cityscapes")
    wanted = means(CLASS_NAMES)
    ours = scores(result, wanted)
    for name, iou in zip(CLASS_NAMES, ours["iou"], strict=True):
        assert same(iou, theirs[name]), name
    assert same(ours["means"]["mean over 19 classes"]["iou"], average)
    # The files hold what they are meant to.
    assert math.isnan(theirs["train"]) and math.isnan(theirs["truck"])
    assert theirs["bus"] == 0 and theirs["bicycle"] == 0 and 0 < theirs["car"] < 1
    assert ours["means"]["mean over 19 classes"]["classes"] == 17
    for name, ids in wanted.items():
        kept = {c: theirs[c] for i, c in enumerate(CLASS_NAMES) if i not in ids}
        assert same(ours["means"][name]["iou"], official.getScoreAverage(kept, None)), name
    matrix = np.array(everything["confMatrix"])
    ids = [entry.label_id for entry in CLASSES]
    np.testing.assert_array_equal(result.counts[:, :-1], matrix[np.ix_(ids, ids)])
    np.testing.assert_array_equal(result.counts.sum(1), matrix[ids].sum(1))
    assert result.counts[:, -1].any() and result.images == 3


def test_train_ids_of_the_same_maps_give_the_same_numbers(cityscapes):
    predictions, truth = cityscapes
    before = evaluation.of_folder("a", predictions, truth, ids="cityscapes")
    for path in predictions.rglob("*.png"):
        write(path, train_ids(np.asarray(Image.open(path))))
    mixed = evaluation.of_folder("b", predictions, truth, truth_ids="cityscapes")
    np.testing.assert_array_equal(mixed.counts, before.counts)
    for path in truth.rglob("*_labelIds.png"):
        write(path, train_ids(np.asarray(Image.open(path))))
    prepared = evaluation.of_folder("c", predictions, truth)
    np.testing.assert_array_equal(prepared.counts, before.counts)


def test_cityscapes_ids_are_for_its_classes_only(cityscapes):
    with pytest.raises(UserError, match="stand for its 19 classes, not for the 2"):
        evaluation.of_folder("a", *cityscapes, class_names=("a", "b"), ids="cityscapes")


def test_what_predict_wrote_is_found_with_its_classes(tmp_path):
    write(tmp_path / "p/labels/1.png", [[0, 1]])
    write(tmp_path / "p/overlay/1.png", [[9, 9]])
    write(tmp_path / "t/1.png", [[0, 0]])
    (tmp_path / "p/prediction.json").write_text(json.dumps({"classes": ["road", "rest"]}))
    result = evaluation.of_folder("p", tmp_path / "p", tmp_path / "t")
    assert result.class_names == ("road", "rest")
    assert result.counts.tolist() == [[1, 1, 0], [0, 0, 0]]
    (tmp_path / "p/prediction.json").write_text("{}")
    with pytest.raises(UserError, match=r"prediction.json cannot be read"):
        evaluation.of_folder("p", tmp_path / "p", tmp_path / "t")


def test_scores_worked_out_by_hand():
    counts = np.array([[6, 2, 0, 2], [1, 3, 0, 0], [0, 0, 0, 0]])
    values = scores(Result("x", counts, ("a", "b", "c"), 1, {}), {"all": (), "b": (0, 2)})
    # Pixels of no class are missed ones of a: they are in its IoU and recall, in no precision.
    np.testing.assert_allclose(values["iou"], [6 / 11, 3 / 6, np.nan])
    np.testing.assert_allclose(values["recall"], [6 / 10, 3 / 4, np.nan])
    np.testing.assert_allclose(values["precision"], [6 / 7, 3 / 5, np.nan])
    assert values["pixel_accuracy"] == pytest.approx(9 / 14)
    assert values["means"]["all"]["iou"] == pytest.approx((6 / 11 + 3 / 6) / 2)
    assert values["means"]["all"]["recall"] == pytest.approx((6 / 10 + 3 / 4) / 2)
    assert values["means"]["all"]["classes"] == 2
    assert values["means"]["b"] == {
        "iou": 0.5, "precision": 0.6, "recall": 0.75, "classes": 1, "of": 1, "title": "b",
        "counted": {"iou": 1, "precision": 1, "recall": 1},
    }  # fmt: skip
    nothing = scores(Result("x", 0 * counts, ("a", "b", "c"), 1, {}), {"all": ()})
    assert math.isnan(nothing["means"]["all"]["iou"]) and math.isnan(nothing["pixel_accuracy"])


def test_means_of_19_16_and_13_classes_and_of_other_data():
    found = means(CLASS_NAMES)
    kept = [[c for i, c in enumerate(CLASS_NAMES) if i not in ids] for ids in found.values()]
    assert list(found) == [f"mean over {n} classes" for n in (19, 16, 13)]
    assert [len(names) for names in kept] == [19, 16, 13]
    assert set(kept[0]) - set(kept[1]) == {"terrain", "truck", "train"}
    assert set(kept[1]) - set(kept[2]) == {"wall", "fence", "pole"}
    assert means(CLASS_NAMES, (16, 14, 9)) == found  # as the SYNTHIA recipes leave out
    assert means(("a", "b", "c")) == {"mean over 3 classes": ()}
    assert means(("a", "b", "c"), (1,)) == {"mean over 3 classes": (), "mean over 2 classes": (1,)}
    assert "mean over 16 classes (without road, sidewalk, building)" in means(
        CLASS_NAMES, (0, 1, 2)
    )


# Checkpoints: of a network whose predictions are known beforehand, see conftest.py.


@pytest.fixture
def images(tmp_path):
    """A list of images of two sizes, with labels; the sum of what should be counted."""
    lines, total = [], np.zeros((19, 19), int)
    for index, size in enumerate([(6, 8), (5, 7), (6, 8), (6, 8), (5, 7)]):
        label = RNG.integers(0, 20, size)
        label[label == 19] = 255
        guess = RNG.integers(0, 18, size)
        np.add.at(total, (label[label < 255], guess[label < 255]), 1)
        write(tmp_path / "data" / f"x/{index}.png", np.stack([10 * guess] * 3, -1))
        write(tmp_path / "data" / f"y/{index}.png", label)
        lines.append(f"x/{index}.png y/{index}.png\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path, total


def opened(folder: Path, **changes):
    options = {"root": folder / "data", "split": "val", "list_file": folder / "list.txt"}
    return scored_data.open_pairs(folder / "run", **options | changes)


def test_a_checkpoint_is_scored_on_images_of_any_size(images, save):
    folder, total = images
    network = evaluation.open_network(save(folder / "run"))
    result = evaluation.of_network("student", network, opened(folder))
    np.testing.assert_array_equal(result.counts[:, :-1], total)
    assert result.counts.shape == (19, 20) and not result.counts[:, -1].any()
    assert result.images == 5 and result.class_names == CLASS_NAMES
    assert result.facts["network"] == "student" and result.facts["step"] == 7
    again = evaluation.of_network("student", network, opened(folder), batch=16)
    np.testing.assert_array_equal(again.counts, result.counts)


def test_a_teacher_is_scored_when_asked_for(images, save):
    folder, total = images
    network = evaluation.open_network(save(folder / "run"), teacher=True)
    result = evaluation.of_network("teacher", network, opened(folder))
    np.testing.assert_array_equal(result.counts[:, :-1], np.roll(total, 1, axis=1))
    assert result.facts["network"] == "teacher"


def test_other_classes_have_their_names_and_count(images, save):
    folder, _ = images
    path = save(folder / "run", classes=3)
    assert evaluation.open_network(path).class_names == ("class 0", "class 1", "class 2")
    assert evaluation.open_network(path, class_names=("a", "b", "c")).class_names[2] == "c"
    with pytest.raises(UserError, match="has 3 classes, but 2 are to be scored: a, b"):
        evaluation.open_network(path, class_names=("a", "b"))
    with pytest.raises(UserError) as caught:
        evaluation.of_network("x", evaluation.open_network(path), opened(folder))
    for word in ("data/y/0.png", "no train id (0..2", "has 3 classes"):
        assert word in str(caught.value)


def test_bad_images_and_labels_are_named(images):
    folder, _ = images
    (folder / "data/x/2.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read image .*x/2.png"):
        evaluation.by_size(opened(folder), 19)
    (folder / "data/x/2.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 images of .*list.txt are missing .*x/2.png"):
        evaluation.by_size(opened(folder), 19)
    write(folder / "data/x/2.png", np.zeros((8, 6, 3)))
    with pytest.raises(UserError) as caught:
        evaluation.by_size(opened(folder), 19)
    for word in ("x/2.png has 6×8", "y/2.png has 8×6"):
        assert word in str(caught.value)


def test_a_list_needs_labels(images):
    folder, _ = images
    with open(folder / "list.txt", "a") as lines:
        lines.write("x/9.png\n")
    with pytest.raises(UserError, match=r"list.txt gives no label for 1 of 6 images, first x/9"):
        opened(folder)


def test_data_of_other_classes_than_the_checkpoints(images, save):
    folder, _ = images
    network = evaluation.open_network(save(folder / "run"))
    pairs = replace(opened(folder), num_classes=2, id_map=((3, 0), (5, 1)))
    with pytest.raises(UserError, match=r"run has 19 classes, but the data in .*data have 2"):
        evaluation.of_network("student", network, pairs)


def test_a_split_is_that_of_the_checkpoints_run(whole, tmp_path):
    run = whole.folder
    for path in (run, run / "adapt", run / "adapt/checkpoints", run / "adapt/checkpoints/6"):
        pairs = scored_data.open_pairs(path, root=None, split="val", list_file=None)
        assert len(pairs) == 5 and Path(pairs.root) == run / "data"
    pairs = scored_data.open_pairs(run, root=None, split="selection", list_file=None)
    assert len(pairs) == 4
    assert scored_data.left_out(run) == ()
    (tmp_path / "moved").symlink_to(run / "data")
    moved = scored_data.open_pairs(run, root=tmp_path / "moved", split="val", list_file=None)
    assert Path(moved.root) == tmp_path / "moved" and len(moved) == 5


def test_outside_of_runs_the_data_has_to_be_there(tmp_path):
    with pytest.raises(UserError, match=r"folder .*leftImg8bit/val is missing"):
        scored_data.open_pairs(tmp_path, root=tmp_path / "data", split="val", list_file=None)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        scored_data.open_pairs(tmp_path / "adapt", root=None, split="val", list_file=None)
