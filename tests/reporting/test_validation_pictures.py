"""The pictures show what the method computes, in the right places."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.data import classes
from dasac_jax.image import views
from dasac_jax.image.normalise import normalise
from dasac_jax.method import consistency
from dasac_jax.reporting import label_pictures, validation_pictures

SIZE, VIEWS, CLASSES = (24, 40), 4, 6
RULES = {"upper": 0.75, "lower": 0.2, "beta": 1e-3, "discount": True}
# Each class is a colour, so that a network by colour is right everywhere.
COLOURS = np.array([[20, 20, 20], [240, 30, 30], [30, 240, 30], [40, 40, 250], [240, 240, 30]])
OWN = classes.own("abcdef", [(40 * i + 9, 250 - 40 * i, 7 * i) for i in range(CLASSES)])


def by_colour(variables, images):
    """Probabilities of a network that knows classes by their colour; `variables` shifts them."""
    distance = jnp.square(images[..., None, :] - normalise(COLOURS)).sum(-1)
    return jnp.roll(jax.nn.softmax(-8 * jnp.pad(distance, [(0, 0)] * 3 + [(0, 1)],
                                                constant_values=99.0)), variables, -1)  # fmt: skip


def coloured_image():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, len(COLOURS), (3, 5)).repeat(8, 0).repeat(8, 1)
    return COLOURS[labels].astype(np.uint8), labels


@pytest.fixture(scope="module")
def inspect():
    made = partial(
        views.target_views, size=SIZE, num_views=VIEWS, target_scale=(1.0, 1.1), zoom=(0.5, 1.2),
        jitter=0.4, hue=0.1,
    )  # fmt: skip
    return validation_pictures.inspector(by_colour, made, group_size=VIEWS, pool="average", **RULES)


@pytest.fixture(scope="module")
def stages(inspect):
    prior = jnp.full(CLASSES, 0.1)
    return inspect(jax.random.key(5), coloured_image()[0], 0, prior)


@pytest.mark.parametrize("discount", [True, False])
def test_thresholds_are_those_that_pseudo_labels_keep_by(discount):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(CLASSES, 0.5), (3, 10, 12)).astype(np.float32)
    probs[1, ..., 2] = 0  # wins nothing in the second view
    prior = jnp.array([1e-4, 1e-3, 2e-3, 0.5, 3e-4, 1e-2], jnp.float32)
    rules = RULES | {"discount": discount, "lower": 0.3}
    padded = np.zeros(probs.shape[:3], bool)
    labels, confidence = consistency.pseudo_labels(probs, padded, prior, **rules)
    thresholds, won = map(np.asarray, consistency.class_thresholds(probs, prior, **rules))
    assert thresholds.shape == won.shape == (3, CLASSES)
    assert not won[1, 2] and won.sum() == 3 * CLASSES - 1
    winner = probs.argmax(-1)
    mine = np.take_along_axis(thresholds[:, None, None], winner[..., None], -1)[..., 0]
    kept = np.asarray(labels) != 255
    assert 0.2 < kept.mean() < 0.95
    np.testing.assert_array_equal(np.asarray(confidence) > mine, kept)


def test_classes_that_win_no_pixel_have_no_threshold(stages):
    winners = [np.unique(labels[labels != 255]) for labels in stages["pooled"]]
    for classes_won, row in zip(winners, stages["thresholds"], strict=True):
        np.testing.assert_array_equal(np.isnan(row), ~np.isin(np.arange(CLASSES), classes_won))
    assert np.isnan(stages["thresholds"][:, -1]).all()  # no colour of the image is of this class


def test_aligned_views_agree_in_the_reference_frame(stages):
    aligned = stages["aligned"]
    assert aligned.shape == (VIEWS, *SIZE)
    for other in aligned[1:]:
        both = (aligned[0] != 255) & (other != 255)
        assert both.mean() > 0.2 and (aligned[0] == other)[both].mean() > 0.85
    # They do not before: the views are flipped and zoomed.
    teacher = stages["teacher"]
    assert min((teacher[0] == other).mean() for other in teacher[1:]) < 0.6


def test_pooled_predictions_and_pseudo_labels_lie_in_the_views(stages):
    pooled, teacher, pseudo = (stages[name] for name in ("pooled", "teacher", "pseudo_labels"))
    for view in range(VIEWS):
        both = (pooled[view] != 255) & (teacher[view] != 255)
        assert (pooled[view] == teacher[view])[both].mean() > 0.85
    kept = pseudo != 255
    assert 0.3 < kept.mean() < 1
    np.testing.assert_array_equal(pseudo[kept], pooled[kept])
    won = np.unique(pooled[pooled != 255])
    thresholds = stages["thresholds"]
    assert set(np.flatnonzero(~np.isnan(thresholds).all(0))) >= set(won)
    assert np.nanmin(thresholds) >= np.float32(0.2) and np.nanmax(thresholds) <= 0.75


def test_student_view_is_an_image_again(stages):
    assert stages["student_view"].dtype == np.uint8
    assert stages["student_view"].shape == (VIEWS, *SIZE, 3)
    assert stages["student_view"].std() > 30


def test_views_follow_from_the_key_and_predictions_from_the_teacher(inspect, stages):
    prior, image = jnp.full(CLASSES, 0.1), coloured_image()[0]
    again = inspect(jax.random.key(5), image, 0, prior)
    for name, array in stages.items():
        np.testing.assert_array_equal(again[name], array)
    other = inspect(jax.random.key(6), image, 0, prior)
    assert (other["student_view"] != stages["student_view"]).any()
    shifted = inspect(jax.random.key(5), image, 1, prior)
    seen = stages["teacher"] != 255
    np.testing.assert_array_equal(shifted["teacher"][seen], (stages["teacher"][seen] + 1) % CLASSES)


def test_picture_of_the_views(stages):
    picture = validation_pictures.teacher_views(stages, OWN)
    width, height = SIZE[1] + 4, SIZE[0] + 4
    assert picture.shape[1] == 4 + width * len(validation_pictures.VIEW_COLUMNS)
    expected = {
        0: stages["student_view"],
        1: label_pictures.colourise(stages["teacher"], OWN),
        2: label_pictures.colourise(stages["aligned"], OWN),
        3: label_pictures.colourise(stages["pooled"], OWN),
        4: label_pictures.heat(stages["confidence"]),
        5: label_pictures.colourise(stages["pseudo_labels"], OWN),
    }
    for column, cells in expected.items():
        for row, cell in enumerate(cells):
            top, left = 22 + row * height, 4 + column * width
            shown = picture[top : top + SIZE[0], left : left + SIZE[1]]
            np.testing.assert_array_equal(
                shown, cell, err_msg=validation_pictures.VIEW_COLUMNS[column]
            )


def test_picture_of_the_student():
    image, labels = coloured_image()
    shapes = []

    def predict(variables, images):
        shapes.append(images.shape)
        return by_colour(variables, images)

    wrong = (labels + 1) % CLASSES
    scored = [(image, labels, wrong), (255 - image, wrong, labels), (image, labels, labels)]
    picture = validation_pictures.student(predict, 0, scored, batch=2, classes=OWN)
    assert shapes == [(2, *SIZE, 3)] * 2  # one program
    np.testing.assert_array_equal(
        picture, validation_pictures.student(predict, 0, scored, batch=3, classes=OWN)
    )
    for row, (seen, truth, guess) in enumerate(scored):
        top = 22 + row * (SIZE[0] + 4)
        confidence = np.asarray(by_colour(0, normalise(seen[None]))).max(-1)[0]
        cells = (
            seen,
            label_pictures.colourise(truth, OWN),
            label_pictures.colourise(guess, OWN),
            label_pictures.heat(confidence),
        )
        for column, cell in enumerate(cells):
            left = 4 + column * (SIZE[1] + 4)
            shown = picture[top : top + SIZE[0], left : left + SIZE[1]].astype(int)
            assert np.abs(shown - cell).max() <= (1 if column == 3 else 0)


def test_wide_pictures_are_shrunk():
    image = np.zeros((100, 1000, 3), np.uint8)
    labels = np.zeros((100, 1000), int)
    picture = validation_pictures.student(
        by_colour, 0, [(image, labels, labels)], batch=1, classes=OWN
    )
    assert picture.shape[1] == 4 + 4 * (label_pictures.CELL + 4)


def test_mean_thresholds_leave_out_views_without_the_class():
    first = {"thresholds": np.array([[0.2, np.nan, np.nan], [0.4, 0.3, np.nan]])}
    second = {"thresholds": np.array([[0.6, np.nan, np.nan]])}
    np.testing.assert_allclose(
        validation_pictures.mean_thresholds([first, second]), [0.4, 0.3, np.nan]
    )
