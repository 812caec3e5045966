"""The pictures of an evaluation show its numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from dasac_jax.evaluation import plots
from dasac_jax.reporting import figures

NAMES = ("road", "sky", "a $strange name$")
IOUS = {"before": np.array([0.2, np.nan, 0.6]), "after": np.array([0.5, 0.25, 0.75])}
COUNTS = np.array([[6, 2, 0, 2], [0, 0, 0, 0], [1, 0, 3, 0]])


@pytest.fixture
def axes(monkeypatch) -> list[Axes]:
    """The axes of the figures that are written, in order."""
    seen = []
    png = figures.png

    def keep(figure):
        seen.append(figure.axes[0])
        return png(figure)

    monkeypatch.setattr(figures, "png", keep)
    return seen


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def labels(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


def test_bars_have_the_height_of_the_iou(axes):
    picture = opened(plots.iou_bars(NAMES, IOUS))
    assert picture.shape[0] > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 4
    bars = [[bar.get_height() for bar in group] for group in axes[0].containers]
    np.testing.assert_allclose(bars, [[20, 0, 60], [50, 25, 75]])
    assert [text.get_text() for text in axes[0].texts] == ["nan"]
    means = [line.get_ydata()[0] for line in axes[0].get_lines()]
    np.testing.assert_allclose(means, [40, 50])
    assert labels(axes[0].get_legend().get_texts()) == ["before", "after"]
    assert labels(axes[0].get_xticklabels())[:2] == ["road", "sky"]
    first, second = (group[0].get_x() for group in axes[0].containers)
    assert first < second <= first + axes[0].containers[0][0].get_width() + 1e-9


def test_bars_of_nothing_and_of_many_classes(axes):
    opened(plots.iou_bars(("a", "b"), {"x": np.full(2, np.nan)}))
    assert not axes[0].get_lines()
    wide = opened(plots.iou_bars([f"class {i}" for i in range(60)], {"x": np.linspace(0, 1, 60)}))
    assert wide.shape[1] > 2000


def test_confusion_is_shown_in_shares_of_the_true_class(axes):
    opened(plots.confusion_matrix(NAMES, COUNTS, "mine"))
    (image,) = axes[0].get_images()
    drawn = image.get_array()
    np.testing.assert_allclose(drawn[0], [60, 20, 0, 20])
    np.testing.assert_allclose(drawn[2], [25, 0, 75, 0])
    assert drawn.mask[1].all() and not drawn.mask[[0, 2]].any()
    texts = {tuple(map(int, text.get_position())): text.get_text() for text in axes[0].texts}
    assert texts == {(0, 0): "60", (1, 0): "20", (3, 0): "20", (0, 2): "25", (2, 2): "75"}
    assert labels(axes[0].get_xticklabels())[-1] == "(no class)"
    assert axes[0].get_xlabel() == "predicted" and axes[0].get_ylabel() == "true"
    assert axes[0].get_title() == "mine"


def test_confusion_without_pixels_of_no_class_is_square(axes):
    opened(plots.confusion_matrix(NAMES, COUNTS * [1, 1, 1, 0], "mine"))
    assert axes[0].get_images()[0].get_array().shape == (3, 3)


def test_many_classes_have_no_numbers_in_the_cells(axes):
    counts = np.concatenate([np.eye(41, dtype=int), np.zeros((41, 1), int)], axis=1)
    opened(plots.confusion_matrix([str(i) for i in range(41)], counts, "many"))
    assert not axes[0].texts


def test_names_with_dollars_are_drawn_as_they_are():
    opened(plots.iou_bars(("$\\x$", "b"), {"$\\y$": np.array([0.5, 0.5])}))
    opened(plots.confusion_matrix(("$\\x$", "b"), np.ones((2, 3), int), "$\\z$"))


def test_the_same_numbers_give_the_same_bytes():
    assert plots.iou_bars(NAMES, IOUS) == plots.iou_bars(NAMES, IOUS)
    assert plots.iou_bars(NAMES, IOUS) != plots.iou_bars(NAMES, {"before": IOUS["before"]})
