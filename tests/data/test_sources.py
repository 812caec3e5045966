"""Which images and labels each role reads, from list files and from folders."""

import builtins
import os
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dasac_jax.data import sources
from dasac_jax.errors import UserError

SIZE = (6, 10)
CITIES = ("aachen", "ulm")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def image_of(value):
    return np.full((*SIZE, 3), value)


@pytest.fixture
def config(tmp_path):
    """Ten game pairs, six target training and two validation pairs; image i is grey i."""
    for i in range(10):
        save(tmp_path / f"game/images/{i + 1:05d}.png", image_of(i))
        save(tmp_path / f"game/labels_cs/{i + 1:05d}.png", np.full(SIZE, i))
    for split, count in (("train", 3), ("val", 1)):
        for city in CITIES:
            for i in range(count):
                stem = f"{split}/{city}/{city}_{i:06d}_000019"
                save(tmp_path / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", image_of(i))
                name = f"cityscapes/gtFine2/{stem}_gtFine_labelIds.png"
                save(tmp_path / name, np.full(SIZE, 3 if split == "val" else 2))
    return ConfigDict(
        {
            "root": str(tmp_path),
            "source": "gta5",
            "source_size": SIZE,
            "target_size": SIZE,
            "lists": "",
            "source_images": 10000,
            "source_held_out": 2,
            "selection_images": 2,
        }
    )


@pytest.fixture
def lists(config, tmp_path):
    folder = tmp_path / "my_lists"
    folder.mkdir()
    config.lists = str(folder)
    return folder


def test_source_pairs_come_from_the_sorted_folders(config):
    config.source_held_out = 0
    source = sources.open_source(config, "source_train")
    assert len(source) == 10 and len(sources.open_source(config, "source_val")) == 0
    item = source[4]
    assert item["name"] == "game/images/00005.png" == source.names[4]
    assert item["image"].shape == (*SIZE, 3) and item["image"].dtype == np.uint8
    assert item["label"].shape == SIZE and item["label"].dtype == np.uint8
    assert (item["image"] == 4).all() and (item["label"] == 4).all()


def test_held_out_images_are_apart_from_training(config):
    train = sources.open_source(config, "source_train")
    held_out = sources.open_source(config, "source_val")
    assert (len(train), len(held_out)) == (8, 2)
    assert not set(train.names) & set(held_out.names)
    assert sources.open_source(config, "source_val").names == held_out.names


def test_only_the_first_images_are_used(config):
    config.source_images = 4
    names = [
        *sources.open_source(config, "source_train").names,
        *sources.open_source(config, "source_val").names,
    ]
    assert sorted(names) == [f"game/images/{i:05d}.png" for i in range(1, 5)]


def test_all_of_synthia_is_trained_on(config, tmp_path):
    for i in range(5):
        save(tmp_path / f"synthia/RGB/{i:07d}.png", image_of(i))
        save(tmp_path / f"synthia/labels_cs/{i:07d}.png", np.full(SIZE, i))
    config.update({"source": "synthia", "source_images": 0})
    train = sources.open_source(config, "source_train")
    held_out = sources.open_source(config, "source_val")
    assert len(train) == 5 and len(held_out) == 2 and set(held_out.names) < set(train.names)
    assert train[3]["label"][0, 0] == 3


def test_target_splits(config):
    train = sources.open_source(config, "target_train")
    selection = sources.open_source(config, "selection")
    val = sources.open_source(config, "val")
    assert (len(train), len(selection), len(val)) == (6, 2, 2)
    assert set(selection.names) < set(train.names)
    assert {name.split("/")[3] for name in selection.names} == set(CITIES)
    assert (selection[0]["label"] == 2).all() and (val[0]["label"] == 3).all()


def test_target_training_opens_no_label(config, tmp_path, monkeypatch):
    opened = []
    for module, name in ((builtins, "open"), (os.path, "isfile"), (os, "scandir")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda path, *a, original=original, **k: (
                opened.append(str(path)) or original(path, *a, **k)
            ),
        )
    source = sources.open_source(config, "target_train")
    items = [source[i] for i in range(len(source))]
    assert all((item["label"] == 255).all() for item in items)
    images = [path for path in opened if path.endswith(".png")]
    assert len(images) == 6 and len(opened) > 6  # folders are listed, images are opened
    assert not [path for path in opened if "gtFine" in path]

    shutil.rmtree(tmp_path / "cityscapes/gtFine2")
    without = sources.open_source(config, "target_train")
    assert without == source
    assert not sources.missing(config, ["source_train", "target_train"])
    with pytest.raises(UserError, match=r"2 of 2 labels of val are missing .*prepare_data"):
        sources.open_source(config, "val")


def test_listed_target_labels_are_dropped(config, lists, tmp_path):
    image = "cityscapes/leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    (lists / "train_cityscapes.txt").write_text(f"{image} cityscapes/not_there.png\n")
    source = sources.open_source(config, "target_train")
    assert source.pairs == ((image, None),)
    assert (source[0]["label"] == 255).all()


def test_lists_decide_the_pairs_in_their_order(config, lists):
    (lists / "train_game_9K.txt").write_text(
        "game/images/00003.png game/labels_cs/00004.png\r\n\n"
        "game/images/00001.png\tgame/labels_cs/00001.png\n"
    )
    source = sources.open_source(config, "source_train")
    assert source.names == ("game/images/00003.png", "game/images/00001.png")
    assert source[0]["image"][0, 0, 0] == 2 and source[0]["label"][0, 0] == 3
    # A role without a list file falls back to the folders.
    assert len(sources.open_source(config, "target_train")) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png b.png\na.png b.png c.png\n", r"train_game_9K\.txt, line 2: .*expected, got"),
        ("a.png b.png\na.png c.png\n", "line 2: a.png is listed in line 1"),
        ("a.png b.png\nc.png\n", "no label for 1 of 2 images, first c.png"),
        ("\n", "is empty"),
        (b"\xff\xfe\x00", "cannot read list file"),
    ],
)
def test_malformed_lists_name_file_and_line(config, lists, text, message):
    text = text if isinstance(text, bytes) else text.encode()
    (lists / "train_game_9K.txt").write_bytes(text)
    with pytest.raises(UserError, match=message):
        sources.open_source(config, "source_train")


def test_listed_files_that_are_missing_are_counted(config, lists):
    names = [f"game/images/{i:05d}.png game/labels_cs/00001.png\n" for i in range(9, 15)]
    (lists / "train_game_9K.txt").write_text("".join(names))
    with pytest.raises(UserError, match=r"4 of 6 images of source_train .*images/00011\.png,"):
        sources.open_source(config, "source_train")


@pytest.mark.parametrize(
    "written", ["Game/Images/00001.PNG", "game/images/00001", "/game/images/00001.jpg"]
)
def test_a_file_that_is_there_under_a_similar_name_is_told(config, lists, written):
    (lists / "train_game_9K.txt").write_text(f"{written} game/labels_cs/00001.png\n")
    with pytest.raises(
        UserError, match=r"1 of 1 images .*; there is a file game/images/00001\.png"
    ):
        sources.open_source(config, "source_train")


def test_missing_labels_are_counted_and_named(config, tmp_path):
    for i in (2, 3):
        (tmp_path / f"game/labels_cs/{i:05d}.png").unlink()
    config.source_held_out = 0
    with pytest.raises(UserError, match=r"2 of 10 labels of source_train .*labels_cs/00002\.png"):
        sources.open_source(config, "source_train")


@pytest.mark.parametrize(
    ("changes", "role", "message"),
    [
        ({"source": "gta6"}, "source_train", "data.source is 'gta6'"),
        ({"source_held_out": 11}, "source_train", "data.source_held_out is 11.* 10 images"),
        ({"source_held_out": 10}, "source_train", "holds out all 10"),
        ({"selection_images": 7}, "selection", "data.selection_images is 7.* 6 images"),
        ({"selection_images": -1}, "selection", "data.selection_images is -1"),
        ({}, "training", "unknown role 'training'"),
        ({"root": "nowhere"}, "val", "nowhere/cityscapes/leftImg8bit/val is missing"),
    ],
)
def test_impossible_configurations_are_refused(config, changes, role, message):
    config.update(changes)
    with pytest.raises(UserError, match=message):
        sources.open_source(config, role)


def test_an_empty_folder_is_refused(config, tmp_path):
    shutil.rmtree(tmp_path / "game/images")
    (tmp_path / "game/images").mkdir()
    (tmp_path / "game/images/.00001.png").write_bytes(b"hidden")
    with pytest.raises(UserError, match="game/images holds no images"):
        sources.open_source(config, "source_train")


def test_nothing_is_missing_when_the_folders_are_there(config):
    assert sources.missing(config) == []


def test_each_missing_folder_is_told_with_its_origin(config):
    config.root = "nowhere"
    lines = sources.missing(config)
    starts = [line.split(": ")[0] for line in lines]
    assert starts == [
        "nowhere/game/images",
        "nowhere/game/labels_cs",
        "nowhere/cityscapes/leftImg8bit/train",
        "nowhere/cityscapes/gtFine2/train",
        "nowhere/cityscapes/leftImg8bit/val",
        "nowhere/cityscapes/gtFine2/val",
    ]
    assert "Playing for Data" in lines[0] and "scripts/prepare_data.py" in lines[1]
    assert "leftImg8bit_trainvaltest.zip from www.cityscapes-dataset.com" in lines[2]
    assert "gtFine_trainvaltest.zip" in lines[3]
    config.source = "synthia"
    assert "SYNTHIA-RAND-CITYSCAPES" in sources.missing(config, ["source_train"])[0]


def test_selection_labels_are_needed_only_for_selection(config, tmp_path):
    shutil.rmtree(tmp_path / "cityscapes/gtFine2/train")
    assert len(sources.missing(config)) == 1
    config.selection_images = 0
    assert sources.missing(config) == []
    assert len(sources.open_source(config, "selection")) == 0


def test_a_missing_list_folder_is_told(config, lists, tmp_path):
    (line,) = sources.missing(config)
    assert line.startswith(f"{lists}: list files (") and "train_game_9K.txt" in line
    (lists / "val_cityscapes.txt").write_text("a.png b.png\n")
    shutil.rmtree(tmp_path / "cityscapes/leftImg8bit/val")
    assert sources.missing(config) == []  # the list decides the validation images
