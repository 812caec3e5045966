"""Cityscapes, GTA5 and SYNTHIA as they are published, with images of a few pixels."""

import struct
import zlib

import numpy as np
from PIL import Image

from dasac_jax.data import labels


def save(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if palette:
        image.putpalette([value for entry in labels.CLASSES for value in entry.color] * 2)
    image.save(path)


def save_sixteen_bits(path, samples):
    """(h, w, 3) uint16 -> a PNG whose rows take the difference to the one above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = samples.astype(">u2").view(np.uint8).reshape(len(samples), -1)
    rows = np.diff(raw, axis=0, prepend=np.zeros_like(raw[:1]))
    stream = zlib.compress(b"".join(b"\x02" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", samples.shape[1], len(samples), 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
        )
    )


IDS = np.arange(34, dtype=np.uint8).repeat(2).reshape(2, 34)
PHOTO = np.random.default_rng(0).integers(0, 256, (2, 34, 3))


def unpack_gta5(folder):
    for number in (1, 2):
        save(folder / f"images/{number:05d}.png", PHOTO)
        save(folder / f"labels/{number:05d}.png", IDS, palette=True)
    return folder


def unpack_cityscapes(folder):
    for place in ("train/ulm/ulm_000000_000019", "val/bonn/bonn_000000_000019"):
        save(folder / f"leftImg8bit/{place}_leftImg8bit.png", PHOTO)
        save(folder / f"gtFine/{place}_gtFine_labelIds.png", IDS)
    save(folder / "leftImg8bit/test/mainz/mainz_000000_000019_leftImg8bit.png", PHOTO)
    return folder


def unpack_synthia(folder):
    rng = np.random.default_rng(1)
    for number in (0, 1):
        samples = np.zeros((3, 23, 3), np.uint16)
        samples[..., 0] = np.arange(23)
        samples[..., 1] = rng.integers(0, 65536, (3, 23))
        save(folder / f"RAND_CITYSCAPES/RGB/{number:07d}.png", PHOTO[:1].repeat(3, 0)[:, :23])
        save_sixteen_bits(folder / f"RAND_CITYSCAPES/GT/LABELS/{number:07d}.png", samples)
    return folder


UNPACK = {"cityscapes": unpack_cityscapes, "gta5": unpack_gta5, "synthia": unpack_synthia}


def load(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)
