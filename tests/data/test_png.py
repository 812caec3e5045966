"""The fast reader gives Pillow's pixels or leaves the file to Pillow."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dasac_jax.data.png import read_rgb, read_single


@pytest.fixture(scope="module")
def pixels():
    """Noise in one half makes every kind of row filter come up, a ramp in the other."""
    rng = np.random.default_rng(0)
    image = np.indices((90, 70)).sum(0)[..., None] * np.array([1, 2, 3]) % 256
    image[:45] = rng.integers(0, 256, (45, 70, 3))
    return Image.fromarray(image.astype(np.uint8))


def test_rgb_as_pillow_reads_it(pixels, tmp_path):
    path = tmp_path / "a b #1 ü.png"
    for options in ({}, {"compress_level": 0}, {"transparency": (1, 2, 3)}):
        pixels.save(path, **options)
        read = read_rgb(path)
        assert read.dtype == np.uint8 and read.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(read, np.asarray(pixels))


def test_colours_are_left_as_they_are(pixels, tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add(b"gAMA", (45455).to_bytes(4, "big"))
    notes.add(b"sRGB", b"\x00")
    pixels.save(tmp_path / "noted.png", pnginfo=notes)
    np.testing.assert_array_equal(read_rgb(tmp_path / "noted.png"), np.asarray(pixels))


def test_files_in_memory(pixels):
    """Read from the beginning and left there, whatever becomes of them."""
    for mode in ("RGB", "L"):
        file = io.BytesIO()
        pixels.convert(mode).save(file, "PNG")
        read = read_rgb(file)
        assert file.tell() == 0
        assert (mode == "RGB") == (read is not None)
        if read is not None:
            np.testing.assert_array_equal(read, np.asarray(pixels))


def test_many_threads_at_once(pixels, tmp_path):
    images = []
    for number in range(40):
        images.append(np.roll(np.asarray(pixels), number, axis=0))
        Image.fromarray(images[-1]).save(tmp_path / f"{number}.png")
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(read_rgb, [tmp_path / f"{number}.png" for number in range(40)])
    np.testing.assert_array_equal(list(read), images)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_single_channels_and_indices(pixels, tmp_path, mode):
    image = pixels.convert(mode)
    image.save(tmp_path / "x.png")
    values, palette = read_single(tmp_path / "x.png")
    np.testing.assert_array_equal(values, np.asarray(image))
    assert palette == (bytes(image.getpalette()) if mode == "P" else None)
    assert read_rgb(tmp_path / "x.png") is None


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA", "I;16", "P, 4 bits"])
def test_other_formats_are_left_to_pillow(pixels, tmp_path, mode):
    path = tmp_path / "x.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(pixels)[..., 0].astype(np.uint16) * 257).save(path)
    elif mode == "P, 4 bits":
        pixels.quantize(16).save(path, bits=4)
    else:
        pixels.convert(mode).save(path)
    assert read_rgb(path) is None and read_single(path) is None


def test_transparent_grey_is_read_whole_or_not_at_all(pixels, tmp_path):
    grey = pixels.convert("L")
    grey.save(tmp_path / "x.png", transparency=7)
    read = read_single(tmp_path / "x.png")
    assert read is None or (read[0] == np.asarray(grey)).all()


def test_other_files_are_left_to_pillow(pixels, tmp_path):
    pixels.save(tmp_path / "x.jpg")
    (tmp_path / "empty.png").touch()
    for name in ("x.jpg", "empty.png", "absent.png", "."):
        assert read_rgb(tmp_path / name) is None


@pytest.mark.parametrize("kept", [8, 20, 33, 200, -40, -13])
def test_a_file_cut_off_gives_nothing(pixels, tmp_path, kept):
    pixels.save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[:kept])
    assert read_rgb(tmp_path / "x.png") is None


def test_a_damaged_file_gives_nothing(pixels, tmp_path):
    """One wrong byte in the middle of the pixels, which the checksum tells."""
    pixels.save(tmp_path / "x.png")
    damaged = bytearray((tmp_path / "x.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    (tmp_path / "x.png").write_bytes(damaged)
    assert read_rgb(tmp_path / "x.png") is None
