import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.preparation import train_ids
from dasac_jax.errors import UserError


def save(path, ids, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if mode == "P":
        image = image.copy()
        # Colours that differ from the indices: reading colours instead of indices must show.
        image.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tolist())
    image.save(path)


def load(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)


def expected_train_ids():
    known = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
    return np.array([[known.get(int(i), 255) for i in row] for row in IDS])


@pytest.mark.parametrize("mode", ["P", "L"])
def test_gta_labels_are_read_by_index(tmp_path, mode):
    save(tmp_path / "game/labels/00001.png", IDS, mode)
    assert train_ids.prepare_gta(tmp_path) == (1, 0)
    found = load(tmp_path / "game/labels_cs/00001.png")
    np.testing.assert_array_equal(found, expected_train_ids())


def test_cityscapes_keeps_splits_cities_and_names(tmp_path):
    below = "train/ulm/ulm_0_0_gtFine_labelIds.png", "val/bonn/bonn_1_0_gtFine_labelIds.png"
    for name in below:
        save(tmp_path / "cityscapes/gtFine" / name, IDS)
    save(tmp_path / "cityscapes/gtFine/train/ulm/ulm_0_0_gtFine_color.png", IDS)
    assert train_ids.prepare_cityscapes(tmp_path) == (2, 0)
    made = tmp_path / "cityscapes/gtFine2"
    assert {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()} == set(below)
    for name in below:
        np.testing.assert_array_equal(load(made / name), expected_train_ids())


def test_preparation_goes_on_where_it_stopped(tmp_path):
    for i in range(3):
        save(tmp_path / f"game/labels/{i:05d}.png", IDS)
    made = tmp_path / "game/labels_cs"
    save(made / "00001.png", np.zeros((2, 2)))
    (made / ".00002.png.part").write_bytes(b"cut off")
    assert train_ids.prepare_gta(tmp_path) == (2, 1)
    assert load(made / "00001.png").shape == (2, 2)
    assert sorted(p.name for p in made.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert train_ids.prepare_gta(tmp_path) == (0, 3)


@pytest.mark.parametrize("value", [35, 254, 255])
def test_a_value_that_gta_cannot_hold_is_named_and_leaves_nothing(tmp_path, value):
    ids = IDS.copy()
    ids[0, 0] = value
    save(tmp_path / "game/labels/00001.png", ids)
    with pytest.raises(UserError, match=rf"00001\.png holds {value}, which is no id of GTA5 "):
        train_ids.prepare_gta(tmp_path)
    assert not list(tmp_path.glob("game/labels_cs/*"))


def test_a_license_plate_of_gta_is_ignored(tmp_path):
    save(tmp_path / "game/labels/00001.png", [[7, 34, 26, 23]])
    train_ids.prepare_gta(tmp_path)
    assert load(tmp_path / "game/labels_cs/00001.png").tolist() == [[0, 255, 13, 10]]


def test_a_damaged_label_is_named_and_leaves_nothing(tmp_path):
    path = tmp_path / "game/labels/00001.png"
    save(path, IDS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"game/labels/00001\.png"):
        train_ids.prepare_gta(tmp_path)
    assert not list(tmp_path.glob("game/labels_cs/*"))


def test_colour_labels_are_refused(tmp_path):
    path = tmp_path / "game/labels/00007.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(UserError, match=r"00007\.png has pixel format RGB"):
        train_ids.prepare_gta(tmp_path)


@pytest.mark.parametrize("convert", [train_ids.prepare_gta, train_ids.prepare_cityscapes])
def test_missing_and_empty_folders_are_named(tmp_path, convert):
    with pytest.raises(UserError, match=r"(game/labels|gtFine) .*is missing"):
        convert(tmp_path)
    (tmp_path / "game/labels").mkdir(parents=True)
    (tmp_path / "cityscapes/gtFine").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no label files"):
        convert(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    save(tmp_path / "game/labels/00001.png", IDS)
    (tmp_path / "game/labels_cs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write .*00001\.png: .*(exists|directory)"):
        train_ids.prepare_gta(tmp_path)
