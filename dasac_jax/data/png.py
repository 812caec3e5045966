"""PNG files decoded at twice Pillow's speed.

Decoding is most of the work that training leaves to the host. TensorStore, which checkpoints need
anyway, undoes a PNG's row filters with vector instructions, Pillow does so byte by byte.
"""

import contextlib
import os
from typing import BinaryIO

import numpy as np
import tensorstore

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 26  # bytes: up to the depth and type of the pixels
_GREY, _RGB, _PALETTE = 0, 2, 3  # types of pixels
_REFUSALS = (ValueError, NotImplementedError, OSError)  # TensorStore's, for files of other kinds


def read_rgb(file: str | os.PathLike | BinaryIO) -> np.ndarray | None:
    """(h, w, 3) uint8 of a whole PNG of 8-bit RGB; None for any other file, which Pillow may read.

    A file that is damaged or absent gives None as well: Pillow says what is wrong with it. An open
    file is read from its beginning and left there.
    """
    return _read(file, (_RGB,), 3)


def read_single(file: str | os.PathLike | BinaryIO) -> np.ndarray | None:
    """(h, w) uint8 of a whole PNG with one 8-bit channel, of a palette PNG the indices.

    None as in `read_rgb`.
    """
    pixels = _read(file, (_GREY, _PALETTE), 1)
    return None if pixels is None else pixels[..., 0]


def _read(file, types: tuple[int, ...], channels: int) -> np.ndarray | None:
    try:
        encoded = _encoded(file, types)
        if encoded is None:
            return None
        context = tensorstore.Context()  # a memory of its own
        place = {"driver": "memory", "path": "image"}
        tensorstore.KvStore.open({"driver": "memory"}, context=context).result()["image"] = encoded
        opened = tensorstore.open({"driver": "png", "kvstore": place}, context=context).result()
        return opened.read().result() if opened.shape[2] == channels else None
    except _REFUSALS:
        return None


def _encoded(file, types: tuple[int, ...]) -> bytes | None:
    """The file's content if it is a PNG of 8 bits of one of these types."""
    is_open = hasattr(file, "read")
    with contextlib.nullcontext(file) if is_open else open(file, "rb") as opened:
        opened.seek(0)
        header = opened.read(_HEADER)
        fits = header[:8] == _SIGNATURE and header[24:] in [bytes([8, kind]) for kind in types]
        encoded = header + opened.read() if fits else None
        opened.seek(0)
    return encoded
