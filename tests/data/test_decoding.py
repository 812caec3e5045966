"""Label values are the numbers in the file; images are RGB of 8 bits, turned as displayed."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dasac_jax.data.decoding import displayed_size, read_ids, read_rgb, same_proportions
from dasac_jax.data.palettes import Palettes
from dasac_jax.errors import UserError

GREY, PALETTE = 0, 3
COLOURS = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (0, 0, 142))
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREYS = RGB[..., 0]
GREY_RGB = np.repeat(GREYS[..., None], 3, axis=-1)


def picture(path, mode="RGB", **options):
    Image.fromarray(RGB).convert(mode).save(path, **options)
    return path


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


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", RGB),
        ("L", np.asarray(Image.fromarray(RGB).convert("L").convert("RGB"))),
        ("RGBA", RGB),
        ("LA", np.asarray(Image.fromarray(RGB).convert("L").convert("RGB"))),
        ("1", np.asarray(Image.fromarray(RGB).convert("1").convert("RGB"))),
    ],
)
def test_formats_without_loss(tmp_path, mode, expected):
    image = read_rgb(picture(tmp_path / "a.png", mode))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_palette(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "p.png")
    expected = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[indices]
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), expected)


def test_transparency_is_dropped(tmp_path):
    alpha = np.zeros((6, 9, 1), np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], -1)).save(tmp_path / "t.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "t.png"), RGB)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, GREYS.shape)
    Image.fromarray((GREYS.astype(np.uint16) << 8) + noise.astype(np.uint16)).save(
        tmp_path / "grey.png"
    )
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), GREY_RGB)


def test_sixteen_bit_colour(tmp_path):
    values = (RGB.astype(np.int64) << 8) + np.random.default_rng(2).integers(0, 256, RGB.shape)
    flat = values.reshape(len(RGB), -1)
    content = bytearray(png_bytes(flat, 16))
    header = struct.pack(">IIBBBBB", RGB.shape[1], RGB.shape[0], 16, 2, 0, 0, 0)
    content[16:33] = header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "colour.png").write_bytes(content)
    np.testing.assert_array_equal(read_rgb(tmp_path / "colour.png"), RGB)


def test_jpeg_in_grey_and_print_colours(tmp_path):
    for mode in ("L", "CMYK"):
        smooth = Image.new("RGB", (16, 16), (200, 100, 50)).convert(mode)
        smooth.save(tmp_path / "a.jpg", quality=95)
        image = read_rgb(tmp_path / "a.jpg").astype(int)
        expected = np.asarray(smooth.convert("RGB")).astype(int)
        assert image.shape == (16, 16, 3) and np.abs(image - expected).max() < 6


def noted(orientation):
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_images_are_turned_as_they_are_displayed(tmp_path, name):
    path = tmp_path / name
    turned = {3: np.rot90(RGB, 2), 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1)}
    for orientation, expected in turned.items():
        Image.fromarray(RGB).save(path, exif=noted(orientation), lossless=True)
        np.testing.assert_array_equal(read_rgb(path), expected)
        assert displayed_size(path) == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_labels_are_turned_too(tmp_path, mode):
    values = np.arange(54).reshape(6, 9).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(range(0, 200))
    image.save(tmp_path / "a.png", exif=noted(6))
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), np.rot90(values, -1))


def test_notes_in_other_parts_of_a_png_are_followed(tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "Orientation")  # is no such note
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=notes)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), RGB)
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    notes.add_itxt("XML:com.adobe.xmp", xmp)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=notes)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.rot90(RGB, -1))
    assert displayed_size(tmp_path / "a.png") == (9, 6)


def test_files_in_memory_are_read_like_those_on_disk():
    for content in (png_bytes(values_below(16), 4), png_bytes(values_below(16), 8)):
        file = io.BytesIO(content)
        np.testing.assert_array_equal(read_ids(file), values_below(16))
        assert displayed_size(file) == (7, 13) and read_rgb(file).shape == (7, 13, 3)


def test_proportions_agree_up_to_a_pixel():
    assert same_proportions((1080, 1920), (540, 960)) and same_proportions((101, 67), (50, 33))
    assert not same_proportions((1080, 1920), (1080, 1900))
    assert not same_proportions((600, 800), (800, 600))
    assert same_proportions((1046, 1914), (1052, 1914), stretch=0.05)
    assert not same_proportions((1046, 1914), (800, 1914), stretch=0.05)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    whole = picture(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(GREYS.astype(np.float32)).save(tmp_path / "float.tif")
    for name, words in {
        "empty.png": "is empty",
        "text.png": "cannot read image",
        "cut.png": "cannot read image",
        "gone.png": "cannot read image",
        "float.tif": "pixel format F",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            read_rgb(tmp_path / name)
        assert name in str(caught.value)
