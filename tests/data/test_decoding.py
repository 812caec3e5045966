"""Label values are the numbers in the file, whatever its bit depth; other files are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.decoding import read_ids
from dasac_jax.data.palettes import Palettes
from dasac_jax.errors import UserError

GREY, PALETTE = 0, 3
COLOURS = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (0, 0, 142))


def png_bytes(values, depth, colour_type=GREY, palette=()):
    """A PNG written bit by bit, so that no library decides what is stored."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    colours = chunk(b"PLTE", bytes(np.ravel(palette).tolist())) if len(palette) else b""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + colours + chunk(b"IDAT", zlib.compress(filtered))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def values_below(limit):
    return np.random.default_rng(limit).integers(0, limit, (7, 13))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_gives_the_stored_numbers(tmp_path, depth):
    values = values_below(min(1 << depth, 256))
    (tmp_path / "a.png").write_bytes(png_bytes(values, depth))
    found = read_ids(tmp_path / "a.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_of_a_palette_of_any_depth_the_indices_count(tmp_path, depth):
    values = values_below(min(1 << depth, 4))
    (tmp_path / "a.png").write_bytes(png_bytes(values, depth, PALETTE, COLOURS))
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), values)


def test_a_value_beyond_8_bits_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(np.array([[3, 26001]]), 16))
    with pytest.raises(UserError, match=r"a\.png holds the value 26001"):
        read_ids(tmp_path / "a.png")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_without_loss(tmp_path, compression):
    values = values_below(19).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_ids(tmp_path / "a.tif"), values)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "b.tif", compression=compression)
    np.testing.assert_array_equal(read_ids(tmp_path / "b.tif"), values)


def test_tiff_that_inverts_grey_is_refused(tmp_path):
    Image.fromarray(values_below(2).astype(np.uint8)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match=r"a\.tif is a TIFF file whose zero is white"):
        read_ids(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("name", ["label.png", "label.jpg"])
def test_formats_that_may_change_values_are_refused_by_content(tmp_path, kind, name):
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    Image.fromarray(values_below(19).astype(np.uint8)).save(tmp_path / name, kind, **options)
    with pytest.raises(UserError, match=rf"{name} is a {kind} file.*save labels anew as PNG"):
        read_ids(tmp_path / name)


def test_a_grey_palette_has_to_number_its_own_greys(tmp_path):
    values = np.array([[0, 1, 2, 2]])
    same, renumbered = tmp_path / "same.png", tmp_path / "renumbered.png"
    same.write_bytes(png_bytes(values, 8, PALETTE, [(i, i, i) for i in range(3)]))
    np.testing.assert_array_equal(read_ids(same), values)
    renumbered.write_bytes(png_bytes(values, 2, PALETTE, [(0, 0, 0), (7, 7, 7), (255, 255, 255)]))
    with pytest.raises(UserError, match=r"renumbered\.png: its palette is grey, but value 1.* 7,"):
        read_ids(renumbered)
    # What an optimiser did not change is read: the greys that occur are numbered as before.
    renumbered.write_bytes(png_bytes(values % 2, 8, PALETTE, [(0, 0, 0), (1, 1, 1), (9, 9, 9)]))
    np.testing.assert_array_equal(read_ids(renumbered), values % 2)


def test_files_of_a_set_use_one_palette(tmp_path):
    palettes = Palettes()
    others = (COLOURS[0], (9, 9, 9), (8, 8, 8), COLOURS[3])
    files = {
        "whole": ([[0, 1, 2, 3]], COLOURS),
        "cut short": ([[0, 1]], COLOURS[:2]),
        "with other colours for what does not occur": ([[0, 3]], others),
    }
    for name, (values, palette) in files.items():
        (tmp_path / name).write_bytes(png_bytes(np.array(values), 8, PALETTE, palette))
        np.testing.assert_array_equal(read_ids(tmp_path / name, palettes), values)
    optimised = tmp_path / "optimised.png"
    optimised.write_bytes(png_bytes(np.array([[0, 1]]), 1, PALETTE, (COLOURS[0], COLOURS[3])))
    read_ids(optimised)  # on its own it is as good as any other
    told = r"optimised\.png: its palette has \(0, 0, 142\) for value 1, that of .*/whole \(244"
    with pytest.raises(UserError, match=told):
        read_ids(optimised, palettes)
