"""Scores of nothing, and of ids of another kind than said, are refused with the likely cause."""

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.evaluation.label_folders import confusion, match

TRUTH = np.random.default_rng(0).integers(0, 19, (8, 16)).astype(np.uint8)  # all classes
PLACEHOLDER = np.array([[0, 0, 0, 1, 3]], np.uint8)


def scored(tmp_path, predictions, truth, ending="_gtFine_labelIds", classes=19, **options):
    for folder, pixels, name in (("p", predictions, ""), ("t", truth, ending)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"a_000000_000019{name}.png"
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    pairs = match(tmp_path / "p", tmp_path / "t", truth_ids=options.get("truth_ids", "train"))
    return confusion(pairs, classes, **options)


def error(*arguments, **options):
    with pytest.raises(UserError) as caught:
        scored(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["train", "cityscapes"])
def test_placeholders_of_the_test_split(tmp_path, kind):
    guess = np.full_like(PLACEHOLDER, 7)
    said = error(tmp_path, guess, PLACEHOLDER, ids=kind, truth_ids=kind)
    assert "placeholders of Cityscapes' test split" in said
    assert "0 (60.0 %), 1 (20.0 %), 3 (20.0 %)" in said


def test_few_classes_under_other_names_are_no_placeholders(tmp_path):
    assert scored(tmp_path, PLACEHOLDER, PLACEHOLDER, ending="").sum() == 5


@pytest.mark.parametrize(
    ("ids", "truth_ids", "predictions", "truth", "advice"),
    [
        ("cityscapes", "cityscapes", TRUTH, labels.label_ids(TRUTH), ("train", "cityscapes")),
        ("train", "cityscapes", TRUTH, TRUTH, ("train", "train")),
        ("cityscapes", "cityscapes", TRUTH, TRUTH, ("train", "train")),
        ("cityscapes", "train", TRUTH, TRUTH, ("train", "train")),
    ],
)
def test_train_ids_said_to_be_cityscapes_ids(tmp_path, ids, truth_ids, predictions, truth, advice):
    said = error(tmp_path, predictions, truth, ids=ids, truth_ids=truth_ids)
    assert "--ids {} --truth-ids {}".format(*advice) in said and "100.0 % if they hold" in said


def test_weak_train_ids_said_to_be_cityscapes_ids(tmp_path):
    """Where most of a prediction is wrong, its values still tell what it holds."""
    guess = np.where(np.arange(16) < 4, TRUTH, (TRUTH + 3) % 19)
    said = error(tmp_path, guess, labels.label_ids(TRUTH), ids="cityscapes", truth_ids="cityscapes")
    assert "--ids train --truth-ids cityscapes" in said


def test_cityscapes_ids_below_19_said_to_be_train_ids(tmp_path):
    truth = np.array([[0, 1, 2, 3, 4, 5]], np.uint8)  # road to pole: ids 7 to 17
    said = error(tmp_path, labels.label_ids(truth), truth, ending="")
    assert "--ids cityscapes --truth-ids train" in said


@pytest.mark.parametrize(
    ("predictions", "truth", "classes", "words"),
    [
        ([[0, 1]], [[255, 255]], 2, ["truth: no pixel stands for a class", "255 (100.0 %)"]),
        ([[0, 1]], [[0, 255]], 2, ["truth: they hold 0 and 255 alone", "store 1 instead"]),
        ([[0, 255]], [[0, 1]], 2, ["predictions: they hold 0 and 255 alone", "0 (50.0 %)"]),
        ([[255, 255]], [[0, 1]], 2, ["predictions: no scored pixel is predicted", "255 (100.0 %)"]),
        ([[255, 1]], [[1, 255]], 2, ["predictions: no scored pixel is predicted"]),
    ],
)
def test_nothing_to_score(tmp_path, predictions, truth, classes, words):
    said = error(tmp_path, predictions, truth, ending="", classes=classes)
    for word in words:
        assert word in said


def test_a_bad_prediction_is_scored(tmp_path):
    """Wrong everywhere, or always one class: no other kind of ids explains it."""
    assert scored(tmp_path, np.full_like(TRUTH, 7), TRUTH).sum() == TRUTH.size


def test_bad_predictions_in_cityscapes_ids_are_scored(tmp_path):
    truth = labels.label_ids(TRUTH)
    guess = np.where(TRUTH == 7, 8, 7)  # road, and sidewalk for signs
    counts = scored(tmp_path, guess, truth, ids="cityscapes", truth_ids="cityscapes")
    assert counts.sum() == TRUTH.size and counts[:, :2].sum() == TRUTH.size
