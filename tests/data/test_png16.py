import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from dasac_jax.data.png16 import read_sixteen_bits
from dasac_jax.errors import UserError

COLOUR_TYPE = {1: 0, 3: 2, 4: 6}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]  # fmt: skip


def paeth(left, up, corner):
    guess = left + up - corner
    to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    nearest_two = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_two)


def filtered(samples, filters):
    """The rows of (h, w, c) uint16 as the PNG standard stores them, filters taken in turns."""
    h, _, c = samples.shape
    raw = samples.astype(">u2").view(np.uint8).reshape(h, -1).astype(int)
    step = 2 * c
    left, up, corner = (np.zeros_like(raw) for _ in range(3))
    left[:, step:], up[1:], corner[1:, step:] = raw[:, :-step], raw[:-1], raw[:-1, :-step]
    guesses = [0 * raw, left, up, (left + up) // 2, paeth(left, up, corner)]
    rows = b""
    for y in range(h):
        kind = filters[y % len(filters)]
        rows += bytes([kind]) + ((raw[y] - guesses[kind][y]) % 256).astype(np.uint8).tobytes()
    return rows


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def save(path, samples, filters=(0, 1, 2, 3, 4), interlaced=False, pieces=1):
    h, w, c = samples.shape
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    stream = b"".join(filtered(samples[y::dy, x::dx], filters) for x, y, dx, dy in passes)
    packed = zlib.compress(stream)
    size = -(-len(packed) // pieces)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, COLOUR_TYPE[c], 0, 0, interlaced))
        + b"".join(chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
        + chunk(b"IEND", b"")
    )


def synthia_like(h=23, w=40):
    """Classes up to 22 in the lower byte of the first channel, instances of both bytes next."""
    rng = np.random.default_rng(3)
    samples = np.zeros((h, w, 3), np.uint16)
    samples[..., 0] = np.repeat(rng.integers(0, 23, (h, w // 8)), 8, axis=1)
    samples[..., 1] = rng.integers(0, 3000, (h, w))
    return samples


def noise(channels, h=23, w=17):
    return np.random.default_rng(channels).integers(0, 65536, (h, w, channels), np.uint16)


def test_classes_that_pillow_alone_loses(tmp_path):
    samples = synthia_like()
    save(tmp_path / "label.png", samples)
    with Image.open(tmp_path / "label.png") as image:
        assert not np.array(image)[..., 0].any()
    found = read_sixteen_bits(tmp_path / "label.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_and_every_sample_value(tmp_path, kind):
    samples = noise(3)
    save(tmp_path / "label.png", samples, filters=[kind])
    np.testing.assert_array_equal(read_sixteen_bits(tmp_path / "label.png"), samples)


@pytest.mark.parametrize("options", [{"interlaced": True}, {"pieces": 7}], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_interlaced_transparent_and_split_files(tmp_path, channels, options):
    samples = noise(channels)
    save(tmp_path / "label.png", samples, **options)
    np.testing.assert_array_equal(read_sixteen_bits(tmp_path / "label.png"), samples)


@pytest.mark.parametrize("channels, samples_of", [(3, "RGB;16B"), (4, "RGBA;16B")])
def test_pillow_describes_the_samples_as_the_reader_expects(tmp_path, channels, samples_of):
    """`image.tile` is no public interface: where it changes, this says so first."""
    save(tmp_path / "label.png", noise(channels))
    with Image.open(tmp_path / "label.png") as image:
        tiles = [tuple(tile) for tile in image.tile]
    known = len(tiles) == 1 and len(tiles[0]) == 4
    assert known and (tiles[0][0], tiles[0][3]) == ("zip", samples_of), (
        f"Pillow {PIL.__version__} changed `image.tile`, which dasac_jax.data.png16 sets to read "
        f"the lower bytes of 16-bit colour PNGs: {tiles}"
    )


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_eight_bits_are_refused(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "00007.png")
    with pytest.raises(UserError, match=rf"00007\.png has pixel format {mode}.*: a 16-bit"):
        read_sixteen_bits(tmp_path / "00007.png")


def test_one_channel_and_other_formats_are_refused(tmp_path):
    save(tmp_path / "grey.png", noise(1))
    Image.new("RGB", (5, 4)).save(tmp_path / "photo.png", format="JPEG")
    for name in ("grey", "photo"):
        with pytest.raises(UserError, match=rf"{name}\.png has pixel format"):
            read_sixteen_bits(tmp_path / f"{name}.png")


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "0000001.png"
    save(path, noise(3))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content in (whole[: len(whole) // 2], bytes(damaged), b"no image", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read label file .*0000001\.png"):
            read_sixteen_bits(path)
    with pytest.raises(UserError, match=r"0000002\.png"):
        read_sixteen_bits(tmp_path / "0000002.png")
