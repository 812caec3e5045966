"""Which files are there below the data root, found by listing each folder once."""

import os

import pytest

from dasac_jax.data import layout
from dasac_jax.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_images_are_sorted_city_by_city_without_hidden_and_other_files(tmp_path):
    folders = layout.cityscapes("train")
    # As whole paths "a-b/…" would come before "a/…".
    expected = [f"{city}/{i}_leftImg8bit.png" for city in ("a", "a-b", "ulm") for i in (1, 2)]
    touch(tmp_path / folders.images, *reversed(expected))
    touch(tmp_path / folders.images, "a/.3_leftImg8bit.png", "a/notes.txt", "4_leftImg8bit.png")
    assert layout.image_names(tmp_path, layout.folder_entries(tmp_path), folders) == expected


def test_numbered_images_are_sorted_by_name(tmp_path):
    touch(tmp_path / "game/images", "00002.png", "00010.png", "00001.png", ".00003.png", "x.jpg")
    names = layout.image_names(tmp_path, layout.folder_entries(tmp_path), layout.GTA5)
    assert names == ["00001.png", "00002.png", "00010.png"]


def test_suffixes_count_in_any_case_and_other_pictures_are_counted(tmp_path, caplog):
    touch(tmp_path / "game/images", "00001.PNG", "00002.png", "00003.jpg")
    touch(tmp_path / "game/labels_cs", "00001.png", "00002.PNG")
    assert layout.find_pairs(tmp_path, "gta5", "train") == (
        ("game/images/00001.PNG", "game/labels_cs/00001.png"),
        ("game/images/00002.png", "game/labels_cs/00002.PNG"),
    )
    assert "1 picture is left out, not *.png in game/images (1 .jpg)" in caplog.text


def test_a_city_that_is_a_link_to_nothing_is_an_error(tmp_path):
    place = tmp_path / "cityscapes/leftImg8bit/val"
    touch(tmp_path / "store", "bonn_000000_000019_leftImg8bit.png")
    touch(place, "7_leftImg8bit.png")
    (place / "bonn").symlink_to(tmp_path / "store")
    ((image, label),) = layout.find_pairs(tmp_path, "cityscapes", "val")
    assert image.endswith("bonn/bonn_000000_000019_leftImg8bit.png") and label is None
    (place / "ulm").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"val/ulm is a link to nowhere, which is not there"):
        layout.find_pairs(tmp_path, "cityscapes", "val")


def test_a_missing_folder_holds_no_images(tmp_path):
    assert layout.image_names(tmp_path, layout.folder_entries(tmp_path), layout.SYNTHIA) == []


def test_files_are_missing_that_are_absent_folders_or_links_to_nothing(tmp_path):
    touch(tmp_path, "a/file.png", "elsewhere.png")
    (tmp_path / "a/folder.png").mkdir()
    (tmp_path / "a/link.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "a/dangling.png").symlink_to(tmp_path / "nowhere.png")
    there = ["a/file.png", "elsewhere.png", "a/link.png", "a/../elsewhere.png"]
    absent = ["a/folder.png", "a/dangling.png", "a/absent.png", "b/file.png"]
    entries = layout.folder_entries(tmp_path)
    assert layout.missing_files(tmp_path, entries, [*there, *absent]) == absent


def test_each_folder_is_listed_once_and_present_files_are_not_asked_for(tmp_path, monkeypatch):
    touch(tmp_path, *(f"game/images/{i:05d}.png" for i in range(20)))
    touch(tmp_path, *(f"game/labels_cs/{i:05d}.png" for i in range(20)))
    asked = []
    for module, name in ((os, "scandir"), (os.path, "isfile")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, original=original: asked.append(path) or original(path)
        )
    pairs = layout.find_pairs(tmp_path, "gta5", "train")
    assert len(pairs) == 20 and all(label for _, label in pairs)
    assert asked == [os.path.join(tmp_path, f"game/{kind}") for kind in ("images", "labels_cs")]
