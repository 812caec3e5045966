"""Pairs as they are read: formats, sizes, and errors that name file and item."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError

SIZE = (6, 10)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    """Ten game pairs; image i is grey i."""
    for i in range(10):
        save(tmp_path / f"game/images/{i + 1:05d}.png", np.full((*SIZE, 3), i))
        save(tmp_path / f"game/labels_cs/{i + 1:05d}.png", np.full(SIZE, i))
    return tmp_path


def open_pairs(root, **options):
    names = [f"{i + 1:05d}.png" for i in range(10)]
    pairs = tuple((f"game/images/{name}", f"game/labels_cs/{name}") for name in names)
    return PairSource(str(root), pairs, SIZE, "source_train", **options)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_images_of_any_colour_format_become_rgb(root, mode):
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[2:4, 3:6] = 255
    save(root / "game/images/00001.png", picture, mode)
    image = open_pairs(root)[0]["image"]
    np.testing.assert_array_equal(image, picture)


def test_items_are_resized_as_pillow_does(root):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (17, 23, 3), dtype=np.uint8)
    ids = rng.choice([0, 7, 18, 255], (34, 46)).astype(np.uint8)
    save(root / "game/images/00001.png", picture)
    save(root / "game/labels_cs/00001.png", ids)
    item = open_pairs(root)[0]
    expected = Image.fromarray(picture).resize((10, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(item["image"], np.array(expected))
    rows, columns = (np.arange(6) + 0.5) * 34 // 6, (np.arange(10) + 0.5) * 46 // 10
    np.testing.assert_array_equal(item["label"], ids[np.ix_(rows.astype(int), columns.astype(int))])


def test_a_corrupt_image_is_named_with_item_and_reason(root):
    path = root / "game/images/00004.png"
    path.write_bytes(path.read_bytes()[:50])
    source = open_pairs(root)
    with pytest.raises(UserError, match=r"cannot read image .*00004\.png: \S+.*item 3 of source_"):
        source[3]
    path.write_text("no picture")
    with pytest.raises(UserError, match="cannot identify"):
        source[3]
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        source[3]


def test_no_damage_to_a_file_escapes_as_another_error(root):
    path = root / "game/images/00001.png"
    source = open_pairs(root)
    data = path.read_bytes()
    refused = 0
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x5A]) + data[position + 1 :])
        try:
            assert source[0]["image"].shape == (*SIZE, 3)
        except UserError:
            refused += 1
    assert refused > len(data) // 2


def test_of_16_bits_the_upper_ones_count_and_numbers_of_32_are_refused(root):
    path = root / "game/images/00001.png"
    Image.fromarray(np.full(SIZE, 3000, np.uint16)).save(path)
    assert (open_pairs(root)[0]["image"] == 3000 >> 8).all()
    Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(path, "TIFF")
    with pytest.raises(UserError, match=r"00001\.png has pixel format F.*item 0"):
        open_pairs(root)[0]


def test_image_and_label_are_turned_as_the_image_is_displayed(root):
    """A camera held upright stores its picture lying, with a note."""
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    notes = Image.Exif()
    notes[0x0112] = 6
    path = root / "game/images/00001.png"
    Image.fromarray(stored).save(path, exif=notes)
    ids = rng.integers(0, 19, SIZE[::-1])
    save(root / "game/labels_cs/00001.png", ids)
    pairs = dataclasses.replace(open_pairs(root), size=SIZE[::-1])
    np.testing.assert_array_equal(pairs[0]["image"], np.rot90(stored, -1))
    np.testing.assert_array_equal(pairs[0]["label"], ids)
    save(root / "game/labels_cs/00001.png", np.zeros(SIZE))
    with pytest.raises(UserError, match=r"00001\.png has 6×10 pixels, its label .* camera's note"):
        pairs[0]


def test_pairs_of_other_proportions_are_refused_unless_a_set_is_known_for_them(root):
    label = root / "game/labels_cs/00002.png"
    save(label, np.zeros((6, 7)))
    with pytest.raises(UserError, match=r"images/00002\.png has 10×6 .*00002\.png 7×6: .*item 1"):
        open_pairs(root)[1]
    assert open_pairs(root, stretch=0.5)[1]["label"].shape == SIZE
    save(label, np.zeros((12, 20)))
    assert open_pairs(root)[1]["label"].shape == SIZE
    save(label, np.zeros((10, 6)))
    with pytest.raises(UserError, match=r"proportions have to agree; one of the two is turned"):
        open_pairs(root)[1]


@pytest.mark.parametrize(("value", "classes"), [(19, 19), (254, 19), (3, 3)])
def test_labels_outside_the_train_ids_are_refused(root, value, classes):
    ids = np.full(SIZE, 255)
    ids[0] = classes - 1
    path = root / "game/labels_cs/00001.png"
    save(path, ids)
    source = open_pairs(root, num_classes=classes)
    assert source[0]["label"][0, 0] == classes - 1
    ids[3, 4] = value
    save(path, ids)
    with pytest.raises(UserError, match=rf"labels_cs/00001\.png contains {value}.*item 0"):
        source[0]
