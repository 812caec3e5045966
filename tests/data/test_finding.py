"""Files below a folder: links, suffixes, hidden files, what is passed over, and the order."""

import os
from pathlib import Path

import pytest

from dasac_jax.data import finding
from dasac_jax.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def names(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def test_suffixes_count_in_any_case_and_hidden_files_not_at_all(tmp_path):
    touch(tmp_path, "a.png", "b.PNG", "c/d.Png", ".e.png", ".f/g.png", "h.txt")
    assert names(tmp_path, finding.find(tmp_path, finding.PNG).paths) == [
        "a.png",
        "b.PNG",
        "c/d.Png",
    ]


def test_linked_folders_and_files_are_found(tmp_path):
    touch(tmp_path, "store/city/a.png", "in/b.png", "c.png")
    (tmp_path / "in/whole").symlink_to(tmp_path / "store")
    (tmp_path / "in/file.png").symlink_to("../c.png")
    (tmp_path / "all").symlink_to("in")
    found = finding.find(tmp_path / "all", finding.PNG).paths
    assert names(tmp_path / "all", found) == ["b.png", "file.png", "whole/city/a.png"]


def test_links_that_lead_back_end(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/other").symlink_to("../b")
    (tmp_path / "b/other").symlink_to("../a")
    found = names(tmp_path, finding.find(tmp_path, finding.PNG).paths)
    assert found == ["a/1.png", "a/other/2.png", "b/2.png", "b/other/1.png"]


@pytest.mark.parametrize("target", ["nowhere", "city"])
def test_a_link_that_may_have_been_a_folder_is_an_error(tmp_path, target):
    touch(tmp_path, "a.png")
    (tmp_path / "city").symlink_to(target)
    with pytest.raises(UserError, match=rf"city is a link to {target}, which is not there.* mend"):
        finding.find(tmp_path, finding.PNG)


def test_an_image_that_is_a_link_to_nothing_is_left_to_its_reader(tmp_path):
    (tmp_path / "a.png").symlink_to("nowhere")
    assert names(tmp_path, finding.find(tmp_path, finding.PNG).paths) == ["a.png"]


def test_a_folder_that_is_missing_or_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"folder .*gone is missing"):
        finding.find(tmp_path / "gone", finding.PNG)
    touch(tmp_path, "locked/a.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"locked cannot be searched: Permission denied"):
        finding.find(tmp_path, finding.PNG)


def test_other_pictures_are_told_apart_from_other_files(tmp_path):
    touch(tmp_path, "a.png", "b.JPG", "c.tif", "d.jpg", "e.json", "f")
    others = finding.find(tmp_path, finding.PNG).others
    (text,) = finding.left_out(others, "no PNG")
    assert text == (f"3 pictures are left out, no PNG (2 .jpg, 1 .tif), first {tmp_path / 'b.JPG'}")
    assert finding.left_out([], "no PNG") == []


def test_pngs_at_a_depth(tmp_path):
    touch(tmp_path, "0.png", "a/1_x.png", "a/2_x.PNG", "a/3.png", "a/b/4_x.png", "a/5_x.jpg")
    found = finding.pngs(tmp_path, 1, "_x")
    assert names(tmp_path, found.paths) == ["a/1_x.png", "a/2_x.PNG"]
    assert names(tmp_path, found.others) == ["0.png", "a/3.png", "a/b/4_x.png", "a/5_x.jpg"]
    assert finding.pngs(tmp_path / "gone", 0) == ([], [])


def test_natural_order():
    ordered = ["a/9.png", "a/10.png", "a10/1.png", "b1_x2", "b1_x10", "b01_y", "b2", "b٣", "é"]
    paths = [Path(name) for name in ordered]
    paths.reverse()
    assert sorted(paths, key=finding.natural) == paths[::-1]
