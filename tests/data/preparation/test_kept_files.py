"""What a preparation keeps: files made of these very originals, not of others called alike."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.preparation.execute import carry_out
from dasac_jax.data.preparation.plan import plan_gta5


def png(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 4), value).save(path)


@pytest.fixture
def source(tmp_path):
    """Three pairs of GTA5, labels of road."""
    for number in (1, 2, 3):
        png(tmp_path / f"gta/images/{number:05d}.png", number)
        png(tmp_path / f"gta/labels/{number:05d}.png", 7)
    return tmp_path / "gta"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def label(root, number):
    with Image.open(root / f"game/labels_cs/{number:05d}.png") as image:
        return np.array(image)


def test_labels_follow_their_images_to_another_source(source, root):
    """Files of two folders that are called alike, such as two versions of a set."""
    carry_out(plan_gta5(source), root)
    other = source.with_name("other")
    shutil.copytree(source, other)
    png(other / "labels/00002.png", 8)
    for path in other.glob("labels/*"):
        os.utime(path, (1, 1))  # older than what was made of the first folder
    summary = carry_out(plan_gta5(other), root)
    assert (summary.images, summary.labels) == ({"linked": 3}, {"written": 1, "kept": 2})
    assert (label(root, 2) == 1).all()
    assert carry_out(plan_gta5(other), root).labels == {"kept": 3}


def test_labels_that_note_no_original_are_kept_if_they_are_what_it_gives(source, root):
    carry_out(plan_gta5(source), root)
    for number, ids in ((1, label(root, 1)), (2, label(root, 2) + 5)):
        Image.fromarray(ids).save(root / f"game/labels_cs/{number:05d}.png")
    before = (root / "game/labels_cs/00002.png").read_bytes()
    summary = carry_out(plan_gta5(source), root)
    assert summary.labels == {"kept": 2}
    assert "labels_cs/00002.png is there already and is not what" in summary.errors[0]
    assert (root / "game/labels_cs/00002.png").read_bytes() == before


def test_a_file_of_the_size_of_its_original_may_be_another(source, root):
    for path in source.glob("images/*"):
        Image.new("RGB", (8, 4)).save(path, "BMP")
    carry_out(plan_gta5(source), root, copy=True)
    Image.new("RGB", (8, 4), (1, 2, 3)).save(source / "images/00002.png", "BMP")
    os.utime(root / "game/images/00003.png", (1, 1))
    summary = carry_out(plan_gta5(source), root, copy=True)
    assert summary.images == {"kept": 2}
    assert "images/00002.png is there already and is no copy" in summary.errors[0]
