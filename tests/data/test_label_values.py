"""Label files of numbers and of colours, read by id maps that name either."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dasac_jax.config import base
from dasac_jax.data import label_values, sources
from dasac_jax.data.decoding import read_values
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError

RED, BLUE, MIXED = (255, 0, 0), (0, 0, 255), (128, 0, 127)
COLOURS = np.array([[RED, RED, MIXED], [BLUE, BLUE, BLUE]], np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def indexed(path, indices, colours):
    """A palette PNG."""
    image = Image.fromarray(np.array(indices, np.uint8))
    image.putpalette(bytes(v for colour in colours for v in colour))
    image.save(path)
    return path


def pairs(folder, id_map, names):
    save(folder / "image.png", np.zeros((2, 3, 3), np.uint8))
    listed = tuple(("image.png", name) for name in names)
    return PairSource(str(folder), listed, (2, 3), "test", 2, id_map=id_map)


def test_colours_are_read_from_rgb_rgba_and_palettes(tmp_path):
    alpha = np.full((2, 3, 1), 7, np.uint8)
    save(tmp_path / "rgb.png", COLOURS)
    save(tmp_path / "rgba.png", np.concatenate([COLOURS, alpha], axis=2))
    save(tmp_path / "rgb.tif", COLOURS)
    indexed(tmp_path / "palette.png", [[2, 2, 1], [0, 0, 0]], [BLUE, MIXED, RED])
    for name in ("rgb.png", "rgba.png", "rgb.tif", "palette.png"):
        found = read_values(tmp_path / name, by_colour=True)
        np.testing.assert_array_equal(found, COLOURS)
    np.testing.assert_array_equal(read_values(tmp_path / "palette.png"), [[2, 2, 1], [0, 0, 0]])
    stored = io.BytesIO((tmp_path / "rgba.png").read_bytes())  # as stored sets give it
    np.testing.assert_array_equal(read_values(stored), COLOURS)


def test_numbers_of_16_bits_are_read_whole(tmp_path):
    numbers = np.array([[3328, 65535, 0]], np.uint16)
    found = read_values(save(tmp_path / "a.png", numbers))
    assert found.dtype == np.uint16 and found.tolist() == numbers.tolist()


def test_an_id_map_may_name_numbers_and_colours(tmp_path):
    save(tmp_path / "colours.png", COLOURS)
    save(tmp_path / "numbers.png", np.array([[3328, 3329, 9], [9, 9, 65535]], np.uint16))
    id_map = ((RED, 1), (BLUE, 0), (3328, 1), (3329, 1), (65535, 0))
    found = pairs(tmp_path, id_map, ["colours.png", "numbers.png"])
    assert found[0]["label"].tolist() == [[1, 1, 255], [0, 0, 0]]
    assert found[1]["label"].tolist() == [[1, 1, 255], [255, 255, 0]]


def test_palettes_that_were_renumbered_are_right_when_colours_are_named(tmp_path):
    indexed(tmp_path / "a.png", [[2, 2, 1], [0, 0, 0]], [BLUE, MIXED, RED])
    indexed(tmp_path / "b.png", [[0, 0, 2], [1, 1, 1]], [RED, BLUE, MIXED])
    found = pairs(tmp_path, ((RED, 1), (BLUE, 0)), ["a.png", "b.png"])
    for i in range(2):
        assert found[i]["label"].tolist() == [[1, 1, 255], [0, 0, 0]]
    by_index = pairs(tmp_path, ((2, 1), (0, 0)), ["a.png", "b.png"])
    by_index[0]
    with pytest.raises(UserError, match=r"b\.png: its palette has"):
        by_index[1]


@pytest.mark.parametrize(
    ("array", "id_map", "words"),
    [
        (COLOURS, ((0, 0), (1, 1)), "holds colours, of which data.classes"),
        (COLOURS[..., 0], ((RED, 0), (BLUE, 1)), "holds numbers, of which data.classes"),
        (COLOURS, (), "RGB"),
    ],
)
def test_files_of_the_other_kind_are_refused(tmp_path, array, id_map, words):
    save(tmp_path / "a.png", array)
    with pytest.raises(UserError, match=words) as caught:
        pairs(tmp_path, id_map, ["a.png"])[0]
    assert "a.png" in str(caught.value) and "item 0" in str(caught.value)


def test_colours_of_16_bits_are_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # 16 bits a channel, RGB
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(bytes([0, 0, 7, 0, 1, 0, 0]))),
        (b"IEND", b""),
    )
    encoded = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        sum_ = struct.pack(">I", zlib.crc32(name + content))
        encoded += struct.pack(">I", len(content)) + name + content + sum_
    (tmp_path / "a.png").write_bytes(encoded)
    with pytest.raises(UserError, match=r"a\.png has colours of 16 bits a channel"):
        read_values(tmp_path / "a.png")


def test_values_are_counted():
    assert label_values.count(COLOURS) == {RED: 2, MIXED: 1, BLUE: 3}
    assert label_values.count(np.array([[3, 3], [300, 0]], np.uint16)) == {3: 2, 300: 1, 0: 1}
    assert label_values.text(RED) == "(255, 0, 0)" and label_values.text(7) == "7"


def test_a_configuration_names_colours(tmp_path):
    save(tmp_path / "a/image.png", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "a/label.png", COLOURS)
    save(tmp_path / "lists/x.png", COLOURS)
    (tmp_path / "lists/source_train.txt").write_text("a/image.png a/label.png\n")
    config = base()
    config.data.update(root=str(tmp_path), source="custom", lists=str(tmp_path / "lists"))
    config.data.update(source_size=(2, 3))
    config.data.classes.update(
        names=("sea", "fire"), palette=(BLUE, RED), source_ids=((RED, "fire"), (BLUE, "sea"))
    )
    found = sources.open_source(config.data, "source_train")
    assert found[0]["label"].tolist() == [[1, 1, 255], [0, 0, 0]]
