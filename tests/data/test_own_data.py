"""Data of one's own: lists, classes and id maps that the configuration gives."""

import numpy as np
import pytest
from PIL import Image

from dasac_jax.config import base
from dasac_jax.data import sources
from dasac_jax.errors import UserError


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).convert(mode).save(path)


@pytest.fixture
def own(tmp_path):
    """Data of one's own: two pairs of two sizes, one label grey and one with a palette."""
    for i, (height, width) in enumerate([(6, 10), (12, 5)]):
        save(tmp_path / f"a/{i}.png", np.full((height, width, 3), 40 * i))
        ids = np.full((height, width), 3)
        ids[:, : width // 2] = 200
        ids[: height // 3] = 255 if i else 77
        save(tmp_path / f"a/{i}_ids.png", ids, mode="P" if i else None)
    lists = tmp_path / "lists"
    lists.mkdir()
    pairs = "a/0.png a/0_ids.png\na/1.png a/1_ids.png\n"
    (lists / "source_train.txt").write_text(pairs)
    (lists / "target_train.txt").write_text("a/0.png\na/1.png nowhere.png\n")
    (lists / "val.txt").write_text(pairs)
    config = base().data
    config.update(root=str(tmp_path), source="custom", lists=str(lists))
    config.update(source_size=(8, 12), target_size=(6, 6))
    config.classes.update(
        names=("few", "many"),
        palette=((1, 2, 3), (4, 5, 6)),
        source_ids=((3, "many"), (200, "few"), (255, "many")),
        target_ids=((200, "many"),),
    )
    return config


def test_values_of_own_labels_are_mapped_as_they_are_read(own):
    source, val = (sources.open_source(own, role) for role in ("source_train", "val"))
    assert source.num_classes == 2 and len(source) == len(val) == 2
    grey, palette = (source[i] for i in range(2))
    assert grey["image"].shape == palette["image"].shape == (8, 12, 3)
    for item, top in ((grey, 255), (palette, 1)):  # 77 stands for nothing, 255 here for a class
        label = item["label"]
        assert label.shape == (8, 12) and label.dtype == np.uint8
        assert (label[0] == top).all() and label[-1, 0] == 0 and label[-1, -1] == 1
    label = val[0]["label"]
    assert label.shape == (6, 6) and label[-1, 0] == 1 and label[-1, -1] == 255


def test_own_target_images_have_no_labels_whatever_the_list_says(own):
    target = sources.open_source(own, "target_train")
    assert [(target[i]["label"] == 255).all() for i in range(2)] == [True, True]


def test_own_labels_without_an_id_map_hold_train_ids(own, tmp_path):
    own.classes.update(source_ids=(), target_ids=())
    source = sources.open_source(own, "source_train")
    with pytest.raises(UserError, match=r"0_ids.png contains \d+, .*0\.\.1 or 255.*_ids map"):
        source[0]
    save(tmp_path / "a/0_ids.png", np.ones((6, 10)))
    assert set(source[0]["label"].ravel()) == {1}


def test_missing_own_lists_and_files_are_told(own, tmp_path):
    assert sources.missing(own, ["source_train", "target_train", "val"]) == []
    assert sources.has(own, "val") and not sources.has(own, "selection")
    (line,) = sources.missing(own, ["selection"])
    assert line.startswith(f"{tmp_path}/lists/selection.txt: ") and "`image label`" in line
    with pytest.raises(UserError, match=r"lists/selection.txt: the list of selection images"):
        sources.open_source(own, "selection")
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images of val are missing .* first: a/1.png$"):
        sources.open_source(own, "val")
    (tmp_path / "a/0_ids.png").unlink()
    (tmp_path / "lists/val.txt").write_text("a/0.png a/0_ids.png\n")
    with pytest.raises(UserError, match=r"labels of val are missing .* first: a/0_ids.png$"):
        sources.open_source(own, "val")
    (tmp_path / "lists/val.txt").write_text("a/0.png\n")
    with pytest.raises(UserError, match=r"val.txt gives no label for 1 of 1"):
        sources.open_source(own, "val")
