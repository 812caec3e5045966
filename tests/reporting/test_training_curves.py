"""Every curve that has points is drawn, and described in words."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import labels
from dasac_jax.reporting import training_curves

CLASSES = labels.CLASSES[:3]


def line(stage, step, **values):
    return {"stage": stage, "step": step, "seconds": 1.0, "values": values}


LINES = [
    line("baseline", 50, loss_source=2.0),
    line("baseline", 100, loss_source=1.0, selection_miou=0.25),
    line("adapt", 50, loss_source=1.5, loss_target=0.5, labelled=0.4, class_prior=[0.5, 0.1, 0.01]),
    line(
        "adapt", 100, loss_source=1.0, loss_target=0.25, labelled=0.6, selection_miou=0.5,
        class_prior=[0.4, 0.2, 0.02], thresholds=[0.7, None, 0.3], teacher_distance=3.0,
        share_teacher=[0.5, 0.3, 0.2], agreement_views=0.9, agreement_student=0.8, at_floor=0.1,
    ),
]  # fmt: skip


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def count(picture, colour, within=12):
    """Pixels of about a colour: lines are drawn with soft edges."""
    return (np.abs(picture.astype(int) - colour).max(-1) <= within).sum()


@pytest.fixture(scope="module")
def drawn():
    """All curves, light and dark."""
    return [training_curves.draw(LINES, CLASSES, dark=dark) for dark in (False, True)]


def test_draws_what_has_points(drawn):
    assert list(drawn[0]) == list(drawn[1]) == list(training_curves.TITLES)
    assert list(training_curves.draw(LINES[:1], CLASSES)) == ["losses"]
    assert training_curves.draw([], CLASSES) == {}
    nowhere = [line("adapt", 100, thresholds=[None, None, None])]
    assert training_curves.draw(nowhere, CLASSES) == {}


def test_a_curve_moves_with_its_values():
    def drawn(last):
        lines = [line("baseline", 50, loss_source=2.0), line("baseline", 100, loss_source=last)]
        return pixels(training_curves.draw(lines, CLASSES)["losses"])

    first = drawn(1.0)
    assert (first != drawn(0.1)).any()
    np.testing.assert_array_equal(first, drawn(1.0))


def test_a_class_keeps_its_colour_and_leaves_out_what_is_missing(drawn):
    road, sidewalk = (128, 64, 128), (244, 35, 232)
    prior = pixels(drawn[0]["class_prior"])
    assert count(prior, road) > 300 and count(prior, sidewalk) > 300
    thresholds = [line("adapt", step, thresholds=[0.7, None, 0.3]) for step in (50, 100)]
    shown = pixels(training_curves.draw(thresholds, CLASSES)["thresholds"])
    # Of the class without a threshold only the legend's short line is left.
    assert count(shown, sidewalk) < count(shown, road) / 3


def test_a_class_that_vanished_is_drawn_at_the_bottom():
    lines = [line("adapt", step, share_teacher=[0.9, 0.1, 0.0]) for step in (50, 100)]
    assert "building 0.01" in training_curves.describe(lines, "share_teacher", CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = pixels(training_curves.draw(lines, CLASSES)["share_teacher"])
    assert count(shown, (70, 70, 70)) > 300


@pytest.mark.parametrize("name", training_curves.TITLES)
def test_light_and_dark(name, drawn):
    light, dark = (pixels(pictures[name]) for pictures in drawn)
    assert light.shape == dark.shape and light.shape[1] == 800
    assert light[0, 0].min() > 250 and dark[0, 0].max() < 40
    # Title and numbers stand out from either ground.
    assert count(light, (36, 41, 47), 60) > 300 and count(dark, (223, 228, 234), 60) > 300


def test_dark_classes_stand_out_from_a_dark_ground():
    truck = [line("adapt", step, class_prior=[0.1] * 15) for step in (50, 100)]
    classes = labels.CLASSES[:15]
    shown = pixels(training_curves.draw(truck, classes, dark=True)["class_prior"])
    assert count(shown, (0, 0, 70), 4) == 0 and count(shown, (0, 0, 142), 4) == 0


def test_words_for_a_curve():
    assert training_curves.describe(LINES, "losses", CLASSES) == (
        "Curves, losses: source from 2 to 1 in steps 50 to 100 of baseline; "
        "source from 1.5 to 1 in steps 50 to 100 of adapt; "
        "target from 0.5 to 0.25 in steps 50 to 100 of adapt"
    )
    assert training_curves.describe(LINES, "labelled", CLASSES) == (
        "Curves, pixels with a pseudo label, %: from 40 to 60 in steps 50 to 100 of adapt"
    )
    assert training_curves.describe(LINES, "thresholds", CLASSES) == (
        "Curves, confidence thresholds: steps 100 to 100 of adapt, "
        "at the end road 0.7, building 0.3"
    )
