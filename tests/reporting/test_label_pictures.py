"""Colours land on the right pixels, pictures in the right places."""

from __future__ import annotations

import numpy as np
import pytest

from dasac_jax.data import classes
from dasac_jax.data.labels import CLASSES
from dasac_jax.reporting import label_pictures

ROAD, CAR = (128, 64, 128), (0, 0, 142)


def _plain(value: int, height: int = 20, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int16])
def test_colours_of_classes_and_of_none(dtype):
    labels = np.array([[0, 13, 255], [-1, 200, 1000]], dtype)
    black = (0, 0, 0)
    expected = np.array([[ROAD, CAR, black], [black, black, black]], np.uint8)
    np.testing.assert_array_equal(label_pictures.colourise(labels), expected)
    assert label_pictures.colourise(labels).dtype == np.uint8


def test_colours_of_ones_own_classes():
    pair = classes.own(("no", "yes"), ((1, 2, 3), (4, 5, 6)))
    shown = label_pictures.colourise(np.array([[0, 1, 2, 255]]), pair)
    assert shown.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0], [0, 0, 0]]]
    cells = [[_plain(9, 20, 200)]]
    below = label_pictures.panel(cells, ["x"], pair)[44:].reshape(-1, 3).tolist()
    assert [1, 2, 3] in below and [128, 64, 128] not in below


def test_byte_labels():
    np.testing.assert_array_equal(label_pictures.colourise(np.array([[13]], np.uint8)), [[CAR]])


def test_overlay_mixes_classes_and_keeps_the_rest():
    image = np.full((1, 3, 3), 100, np.uint8)
    mixed = label_pictures.overlay(image, np.array([[0, 255, -1]]), strength=0.25)
    expected = [[[107, 91, 107], [100] * 3, [100] * 3]]
    np.testing.assert_array_equal(mixed, expected)
    np.testing.assert_array_equal(
        label_pictures.overlay(image, np.array([[13] * 3]), 1.0), [[CAR] * 3]
    )


def test_overlay_refuses_another_size():
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(3, 1\)"):
        label_pictures.overlay(np.zeros((1, 3, 3), np.uint8), np.zeros((3, 1), int))


def test_panel_keeps_every_picture_in_its_place():
    rows = [[_plain(10), _plain(20), _plain(30)], [_plain(40), _plain(50), _plain(60)]]
    picture = label_pictures.panel(rows, ["image", "truth", "adapted"])
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for line, row in enumerate(rows):
        for column, cell in enumerate(row):
            rows_at, columns_at = np.nonzero((picture == cell[0, 0]).all(-1))
            # Grey text edges may share a picture's grey: count, do not compare outlines.
            assert len(rows_at) >= 20 * 60
            assert abs(np.median(rows_at) - (22 + 24 * line + 10)) <= 1
            assert abs(np.median(columns_at) - (4 + 64 * column + 30)) <= 1


def test_panel_has_titles_above_and_legend_below():
    titled = label_pictures.panel([[_plain(255), _plain(255)]], ["image", "truth"])
    blank = label_pictures.panel([[_plain(255), _plain(255)]], ["", ""])
    changed = np.nonzero((titled != blank).any((1, 2)))[0]
    assert len(changed) and changed.max() < 22
    for entry in CLASSES:
        assert (titled[46:] == entry.color).all(-1).sum() >= 14 * 14


def test_legend_wraps_to_its_width():
    wide, narrow = label_pictures.legend(2500), label_pictures.legend(300)
    assert wide.shape == (22, 2500, 3)
    assert narrow.shape[1] == 300 and narrow.shape[0] > 3 * 22
    for entry in CLASSES:
        assert (narrow == entry.color).all(-1).sum() >= 14 * 14


@pytest.mark.parametrize(
    "rows", [[], [[_plain(0)]], [[_plain(0), _plain(0)], [_plain(0), _plain(0, width=61)]]]
)
def test_uneven_panel_is_refused(rows):
    with pytest.raises(ValueError, match="rows of 2 pictures of one size"):
        label_pictures.panel(rows, ["image", "truth"])


def test_heat_runs_from_dark_to_light():
    colours = label_pictures.heat(np.linspace(0, 1, 101)[None])[0].astype(float)
    lightness = colours @ (0.299, 0.587, 0.114)
    assert (np.diff(lightness) > 0).all()
    assert lightness[0] < 20 and lightness[-1] > 230
    np.testing.assert_array_equal(label_pictures.heat(np.array([[-1.0, 2.0]]))[0], colours[[0, -1]])


def test_heat_bar_shows_all_of_it():
    bar = label_pictures.heat_bar(400, "confidence")
    assert bar.shape == (22, 400, 3) and bar.dtype == np.uint8
    for value in (0.0, 0.5, 1.0):
        colour = label_pictures.heat(np.array([[value]]))[0, 0].astype(int)
        near = np.abs(bar.astype(int) - colour).max(-1) <= 4
        assert near.any(0).sum() >= 1 and near.sum() >= 14
    assert label_pictures.heat_bar(40, "confidence").shape == (22, 40, 3)


def test_shrunk_pictures_and_labels():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 200
    image[0, 0] = 100
    small = label_pictures.shrunk(image, 4)
    assert small.shape == (2, 4, 3)
    assert small[0, 0, 0] == 25 and small[1, 3, 0] == 200
    labels = np.arange(32).reshape(4, 8)
    assert set(label_pictures.shrunk(labels, 4).ravel()) < set(labels.ravel())
    np.testing.assert_array_equal(label_pictures.shrunk(labels, 4)[1], labels[3, 1::2])
    assert label_pictures.shrunk(image, 8) is image
