"""Hand-worked confusion matrices and scores."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.data.labels import table
from dasac_jax.errors import UserError
from dasac_jax.evaluation.metrics import confusion, folded, summarise, values_together

LABELS = np.array([[0, 0, 1, 1], [0, 255, 1, -1]], np.int32)
GUESSES = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], np.int32)
COUNTS = [[2, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_rows_are_truth_and_ignored_pixels_do_not_count():
    counts = confusion(LABELS, GUESSES, 3)
    assert np.issubdtype(counts.dtype, np.integer)
    np.testing.assert_array_equal(counts, COUNTS)
    one_way = confusion(np.array([0]), np.array([2]), 3)
    assert one_way[0, 2] == 1 and one_way[2, 0] == 0


def test_same_under_jit_and_for_bytes():
    jitted = jax.jit(confusion, static_argnums=2)
    np.testing.assert_array_equal(jitted(LABELS, GUESSES, 3), COUNTS)
    stored = np.where(LABELS < 0, 255, LABELS).astype(np.uint8)
    np.testing.assert_array_equal(jitted(stored, GUESSES.astype(np.uint8), 3), COUNTS)


def test_byte_labels_do_not_overflow():
    """18 * 19 + 18 does not fit a byte."""
    label = np.full((5, 7), 18, np.uint8)
    counts = confusion(label, label, 19)
    assert counts[18, 18] == 35 and counts.sum() == 35


def test_counts_are_exact_beyond_float32():
    pixels = 2**24 + 1
    counts = confusion(jnp.zeros(pixels, jnp.uint8), jnp.zeros(pixels, jnp.uint8), 2)
    assert int(counts[0, 0]) == pixels


def test_agrees_with_counting_one_by_one():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 255], (3, 9, 11))
    guesses = rng.integers(0, 4, labels.shape)
    expected = np.zeros((4, 4), int)
    for label, guess in zip(labels.flat, guesses.flat, strict=True):
        if label != 255:
            expected[label, guess] += 1
    np.testing.assert_array_equal(confusion(labels, guesses, 4), expected)


def test_scores_worked_by_hand():
    scores = summarise([[6, 2, 0], [1, 3, 0], [4, 0, 0]])
    np.testing.assert_allclose(scores["iou"], [6 / 13, 3 / 6, 0])
    np.testing.assert_allclose(scores["precision"], [6 / 11, 3 / 5, np.nan])
    np.testing.assert_allclose(scores["recall"], [6 / 8, 3 / 4, 0])
    assert scores["miou"] == pytest.approx((6 / 13 + 0.5 + 0) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(9 / 16)
    assert scores["iou"].dtype == np.float64


def test_absent_class_is_nan_and_left_out_of_the_mean():
    scores = summarise(COUNTS)
    np.testing.assert_allclose(scores["iou"], [0.5, 0.5, np.nan])
    assert scores["miou"] == pytest.approx(0.5)


def test_class_that_is_only_predicted_scores_zero():
    scores = summarise([[3, 1], [0, 0]])
    np.testing.assert_allclose(scores["iou"], [0.75, 0])
    assert np.isnan(scores["recall"][1])
    assert scores["miou"] == pytest.approx(0.375)


def test_ignored_classes_leave_the_mean_only():
    matrix = [[6, 2, 0], [1, 3, 0], [4, 0, 0]]
    scores = summarise(matrix, ignore=(2,))
    assert scores["miou"] == pytest.approx((6 / 13 + 0.5) / 2)
    np.testing.assert_array_equal(scores["iou"], summarise(matrix)["iou"])
    assert scores["pixel_accuracy"] == summarise(matrix)["pixel_accuracy"]


def test_nothing_scored_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = summarise(np.zeros((2, 2)))
    assert np.isnan(scores["miou"]) and np.isnan(scores["pixel_accuracy"])


def test_large_counts_keep_their_ratios():
    """Sums over a set exceed int32."""
    counts = np.array([[3, 1], [1, 3]], np.int64) * 2**40
    assert summarise(counts)["miou"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 2), r"\(2, 2\).*\(2, 3\)"),
        (lambda: confusion(np.zeros(3, int), np.array([0, 255, 1]), 2), "255.*0..1"),
        (lambda: confusion(np.zeros(2, int), np.array([0, -1]), 2), "-1.*0..1"),
        (lambda: summarise(np.zeros((2, 3))), "square"),
        (lambda: summarise(np.zeros((2, 2)), ignore=(2,)), "class 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def on_host(labels, guesses, classes):
    """Counts (C, C + 1) of train ids, as files are counted."""
    ids = table({i: i for i in range(classes)})
    return folded(values_together(labels, guesses), ids, ids, classes)


def test_host_counts_are_those_of_the_device_and_one_column_more():
    rng = np.random.default_rng(1)
    for classes in (2, 19, 254):
        labels = rng.integers(0, classes + 1, (23, 37)).astype(np.uint8)
        labels[labels == classes] = 255
        guesses = rng.integers(0, classes, labels.shape).astype(np.uint8)
        counts = on_host(labels, guesses, classes)
        assert counts.shape == (classes, classes + 1) and counts.dtype == np.int64
        np.testing.assert_array_equal(counts[:, :-1], confusion(labels, guesses, classes))
        assert not counts[:, -1].any()


def test_host_counts_worked_out_by_hand():
    labels = np.array([[0, 0, 1], [255, 1, 255]], np.uint8)
    guesses = np.array([[0, 255, 1], [1, 0, 255]], np.uint8)
    assert on_host(labels, guesses, 2).tolist() == [[1, 0, 1], [1, 1, 0]]
    together = values_together(labels, guesses)
    assert together.sum() == 6 and together[0, 255] == together[255, 1] == 1
    # The same values read as other ids: 255 is class 0, 0 is class 1, and 1 is none.
    other = table({255: 0, 0: 1})
    assert folded(together, other, other, 2).tolist() == [[1, 0, 1], [1, 1, 0]]


def test_host_counts_refuse_other_shapes():
    with pytest.raises(UserError, match=r"\(3,\).*\(2,\)"):
        values_together(np.zeros(3, np.uint8), np.zeros(2, np.uint8))
