"""Folders that may not be searched: nothing in them is said to be missing."""

import os

import pytest

from dasac_jax import config as recipe
from dasac_jax import recipe_flags
from dasac_jax.data import finding, sources
from dasac_jax.errors import UserError
from dasac_jax.files import check_reachable
from dasac_jax.inference import image_files


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder whose content may not be looked at; the tests may run as root, who may."""
    folder = tmp_path / "closed"
    folder.mkdir()

    def denying(call):
        def denied(path=".", *more, **options):
            place = path if isinstance(path, str | os.PathLike) else ""
            if os.fspath(place).startswith(f"{folder}{os.sep}") or place == f"{folder}":
                raise PermissionError(13, "Permission denied", os.fspath(place))
            return call(path, *more, **options)

        return denied

    monkeypatch.setattr(os, "stat", denying(os.stat))
    monkeypatch.setattr(os, "scandir", denying(os.scandir))
    return folder


def own_data(**changes):
    data = recipe.base().data
    data.source = "custom"
    for key, value in changes.items():
        data[key] = str(value)
    return data


def test_what_is_and_what_is_not_there_is_reachable(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "nothing", "nothing/deeper", "file/deeper"):
        check_reachable(tmp_path / path)


def test_a_closed_folder_is_named(closed, tmp_path, capsys):
    (tmp_path / "val.txt").write_text("a.png a_label.png\n")
    for look in (
        lambda: check_reachable(closed / "a.png"),
        lambda: image_files.find_images([f"{closed}/a.png"]),
        lambda: finding.find(closed / "images", (".png",)),
        lambda: sources.missing(own_data(lists=closed), ["val"]),
        lambda: sources.open_source(own_data(root=closed, lists=tmp_path), "val"),
    ):
        with pytest.raises(PermissionError) as caught:
            look()
        assert str(closed) in caught.value.filename
    with pytest.raises(SystemExit) as ended:
        recipe_flags.parse_flags(["main", "--config", f"{closed}/mine.py"])
    assert ended.value.code == 2
    words = f"error: {closed}/mine.py: Permission denied: see to its permissions"
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize("kind", ["folder", "link to nothing"])
def test_a_list_that_cannot_be_read_is_no_missing_list(kind, tmp_path):
    if kind == "folder":
        (tmp_path / "val.txt").mkdir()
    else:
        (tmp_path / "val.txt").symlink_to(tmp_path / "gone")
    assert sources.has(own_data(lists=tmp_path), "val")
    with pytest.raises(UserError, match=r"cannot read list file .*val\.txt"):
        sources.open_source(own_data(root=tmp_path, lists=tmp_path), "val")
