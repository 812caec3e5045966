"""The demo data: folders, formats, restart, and what the scenes hold."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.demo import render
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError

SIZE = {"height": 48, "width": 96}
SMALL = {**SIZE, "seed": 3, "num_source": 2, "num_train": 3, "num_val": 2, "num_test": 1}
VOID = {1, 4, 5, 9}


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_layout_and_formats(tmp_path):
    render.render(tmp_path, **SMALL)
    image = "cityscapes/leftImg8bit/{0}/{1}/{1}_{2:06d}_000019_leftImg8bit.png"
    label = "cityscapes/gtFine/{0}/{1}/{1}_{2:06d}_000019_gtFine_labelIds.png"
    places = [("train", "ahornstadt", 0), ("train", "lindenau", 0), ("train", "ahornstadt", 1)]
    places += [("val", "birkenfurt", 0), ("val", "seeberg", 0)]
    expected = {"demo.json", image.format("test", "eichtal", 0)}
    expected |= {pattern.format(*place) for pattern in (image, label) for place in places}
    expected |= {f"game/{kind}/{n:05d}.png" for kind in ("images", "labels") for n in (1, 2)}
    assert set(files(tmp_path)) == expected

    known = {entry.label_id for entry in CLASSES} | VOID
    game = Image.open(tmp_path / "game/labels/00001.png")
    assert (game.mode, game.size) == ("P", (96, 48))
    assert set(np.unique(np.asarray(game))) <= known
    palette = np.asarray(game.getpalette()).reshape(-1, 3)
    assert all(tuple(palette[entry.label_id]) == entry.color for entry in CLASSES)
    truth = Image.open(tmp_path / label.format(*places[0]))
    assert (truth.mode, truth.size) == ("L", (96, 48))
    assert set(np.unique(np.asarray(truth))) <= known
    for name in ("game/images/00001.png", image.format(*places[0])):
        assert (Image.open(tmp_path / name).mode, Image.open(tmp_path / name).size) == (
            "RGB", (96, 48)
        )  # fmt: skip


def test_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    parameters = {**SMALL, "num_source": 8}
    render.render(tmp_path / "one", **parameters, workers=1)
    render.render(tmp_path / "two", **parameters, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    render.render(tmp_path / "other", **{**SMALL, "seed": 4})
    first = "game/images/00001.png"
    assert files(tmp_path / "one")[first] != files(tmp_path / "other")[first]


def test_workers_find_the_package_where_it_is_not_installed(tmp_path, monkeypatch):
    paths = []

    class Recorded(render.subprocess.Popen):
        def __init__(self, command, env):
            paths.append(env["PYTHONPATH"].split(os.pathsep)[0])
            super().__init__(command, env=env)

    monkeypatch.setattr(render.subprocess, "Popen", Recorded)
    render.render(tmp_path, **{**SMALL, "num_source": 8}, workers=2)
    assert len(paths) == 2 and all(Path(path, "dasac_jax/__init__.py").is_file() for path in paths)


def test_picture_is_a_function_of_its_place_alone():
    image, labels = render.picture("val", 5, seed=1, **SIZE)
    again, labels_again = render.picture("val", 5, seed=1, **SIZE)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    for split, index in (("val", 6), ("train", 5), ("source", 5)):
        assert not np.array_equal(image, render.picture(split, index, seed=1, **SIZE)[0])


def test_restart_keeps_finished_files_and_mends_missing_ones(tmp_path):
    render.render(tmp_path, **SMALL)
    complete = files(tmp_path)
    label, image = tmp_path / "game/labels/00002.png", tmp_path / "game/images/00001.png"
    label.unlink()
    image.write_bytes(b"kept")
    render.render(tmp_path, **SMALL)
    assert image.read_bytes() == b"kept"
    assert label.read_bytes() == complete["game/labels/00002.png"]


def test_an_interrupted_rendering_goes_on(tmp_path, monkeypatch):
    written = []

    def fail_third(root, parameters, item, real=render._render_item):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(item)
        real(root, parameters, item)

    monkeypatch.setattr(render, "_render_item", fail_third)
    with pytest.raises(KeyboardInterrupt):
        render.render(tmp_path / "cut", **SMALL)
    assert not (tmp_path / "cut/demo.json").exists()
    with pytest.raises(UserError, match="seed is 3 there, 5 asked for"):
        render.render(tmp_path / "cut", **{**SMALL, "seed": 5})
    monkeypatch.undo()
    (tmp_path / "cut/game/images/.00009.png.1.tmp").write_bytes(b"killed while writing")
    render.render(tmp_path / "cut", **SMALL)
    render.render(tmp_path / "whole", **SMALL)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(("key", "value"), [("seed", 4), ("width", 128), ("shift", 0.5)])
def test_other_parameters_are_refused(tmp_path, key, value):
    render.render(tmp_path, **SMALL)
    with pytest.raises(UserError, match=f"{key} is .* there, {value} asked for"):
        render.render(tmp_path, **{**SMALL, key: value})


def test_folders_that_are_no_demo_are_refused(tmp_path):
    (tmp_path / "cityscapes").mkdir()
    with pytest.raises(UserError, match=r"cityscapes exists but is no demo data"):
        render.render(tmp_path, **SMALL)
    assert files(tmp_path) == {}


def test_unreadable_marker_is_named(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(UserError, match=r"demo\.json is not readable JSON"):
        render.render(tmp_path, **SMALL)


@pytest.mark.parametrize(("key", "value"), [("height", 40), ("width", 80), ("num_val", -1)])
def test_senseless_parameters_are_refused(tmp_path, key, value):
    with pytest.raises(UserError, match=f"{key} is {value}, it must be at least"):
        render.render(tmp_path, **{**SMALL, key: value})
    assert not any(tmp_path.iterdir())


def test_marker_holds_the_parameters(tmp_path):
    render.render(tmp_path, **SMALL)
    found = json.loads((tmp_path / "demo.json").read_text())
    assert {key: found[key] for key in SMALL} == SMALL


PICTURES = 150  # fewer show too few persons to compare the domains


@pytest.fixture(scope="module")
def statistics():
    """Per domain: share of pixels of each label id, share of pictures showing it, mean colour."""
    result = {}
    for split in ("source", "train"):
        pixels, shown, colours = np.zeros(256), np.zeros(256), []
        for index in range(PICTURES):
            image, labels = render.picture(split, index, seed=0, height=72, width=144)
            counts = np.bincount(labels.ravel(), minlength=256)
            pixels += counts
            shown += counts >= 6
            colours.append(image.reshape(-1, 3).mean(0))
        result[split] = (pixels / pixels.sum(), shown / PICTURES, np.mean(colours, 0))
    return result


@pytest.mark.parametrize("split", ["source", "train"])
def test_every_class_occurs_and_rare_ones_are_rare(statistics, split):
    pixels, shown, _ = statistics[split]
    ids = {entry.name: entry.label_id for entry in CLASSES}
    assert all(pixels[label] > 0 for label in ids.values())
    for name in ("road", "building", "vegetation", "sky", "car"):
        assert shown[ids[name]] > 0.9, name
    for name in ("truck", "bus", "train", "motorcycle", "rider", "wall", "fence"):
        assert 0.03 < shown[ids[name]] < 0.5, name
        assert pixels[ids[name]] < 0.03, name
    assert 0 < pixels[list(VOID)].sum() < 0.08


def test_the_target_differs_in_content_and_look(statistics):
    ids = {entry.name: entry.label_id for entry in CLASSES}
    source, target = statistics["source"][0], statistics["train"][0]
    for name in ("person", "bicycle", "car"):
        assert target[ids[name]] > 1.1 * source[ids[name]], name
    assert target[ids["truck"]] < 0.8 * source[ids["truck"]]
    darker = statistics["source"][2] - statistics["train"][2]
    assert darker.mean() > 15


def test_shift_changes_the_look_of_the_same_scene():
    plain, labels = render.picture("train", 2, seed=0, **SIZE, shift=0.0)
    real, real_labels = render.picture("train", 2, seed=0, **SIZE, shift=1.0)
    np.testing.assert_array_equal(labels, real_labels)

    def roughness(image):
        road = (labels == 7)[:, 1:] & (labels == 7)[:, :-1]
        return np.abs(np.diff(image.astype(float).mean(-1), axis=1))[road].mean()

    assert roughness(real) > 3 * roughness(plain)


def test_labels_meet_the_edges_of_the_image():
    # Without texture and noise, colour steps inside one label are rarer than across its border.
    image, labels = render.picture("source", 1, seed=0, height=96, width=192)
    step = np.abs(np.diff(image.astype(float).mean(-1), axis=1))
    border = labels[:, 1:] != labels[:, :-1]
    shifted = np.roll(border, 7, axis=1)
    assert step[border].mean() > 3 * step[~border].mean()
    assert step[border].mean() > 1.7 * step[shifted].mean()


@pytest.mark.parametrize("size", [(48, 96), (64, 100), (101, 96), (50, 203)])
def test_any_size_renders(size):
    for split in ("source", "val"):
        image, labels = render.picture(split, 0, seed=0, height=size[0], width=size[1])
        assert image.shape == (*size, 3) and labels.shape == size
        assert image.dtype == labels.dtype == np.uint8


def test_contact_sheet_shows_pairs(tmp_path):
    render.render(tmp_path / "data", **SMALL)
    render.contact_sheet(tmp_path / "data", tmp_path / "sheet.png", pairs=2, margin=4)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 52 + 4, 4 * 100 + 4, 3)
    source = np.asarray(Image.open(tmp_path / "data/game/images/00001.png"))
    np.testing.assert_array_equal(sheet[4:52, 4:100], source)
    colours = {tuple(colour) for colour in sheet[4:52, 104:200].reshape(-1, 3)}
    assert (128, 64, 128) in colours and len(colours) <= 20
    with pytest.raises(UserError, match="fewer than 5 pictures"):
        render.contact_sheet(tmp_path / "data", tmp_path / "sheet.png", pairs=5)
