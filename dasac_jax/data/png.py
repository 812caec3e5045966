"""Decode PNG files with TensorStore, at twice Pillow's speed.

Decoding is most of the work of the host in training. TensorStore, which checkpoints need anyway,
reverses the row filters of a PNG with vector instructions, where Pillow works byte by byte.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import tensorstore

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 26  # bytes, of which the last two are bit depth and colour type
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types
# Parts that may hold an orientation, and how their content begins then.
_NOTES = {
    b"eXIf": b"",
    b"iTXt": b"XML:com.adobe.xmp",
    b"zTXt": b"Raw profile type",
    b"tEXt": b"Raw profile type",
}
# TensorStore raises the second for kinds of PNG that it cannot decode, the others for damaged ones.
_DECODER_ERRORS = (ValueError, NotImplementedError, OSError)


def read_rgb(file: str | os.PathLike | BinaryIO) -> np.ndarray | None:
    """Read a PNG of 8-bit RGB as (h, w, 3) uint8. Returns None for other files.

    None also stands for a file with notes on its orientation, which are left to Pillow, and for a
    damaged or missing one: Pillow then gives the error message. An open
    file is read from its beginning, and its position is set back there.
    """
    encoded = _encoded(file, (_RGB,))
    return None if encoded is None else _decode(encoded, 3)


def read_single(file: str | os.PathLike | BinaryIO) -> tuple[np.ndarray, bytes | None] | None:
    """Read a PNG of one 8-bit channel: its values (h, w) uint8, of a palette PNG the indices.

    The second is the palette, red, green and blue of index 0, of index 1 and so on, or None for
    grey. Returns None as `read_rgb` does.
    """
    encoded = _encoded(file, (_GREY, _PALETTE))
    pixels = None if encoded is None else _decode(encoded, 1)
    if pixels is None:
        return None
    return pixels[..., 0], _palette(encoded) if encoded[_HEADER - 1] == _PALETTE else None


def bit_depth(file: str | os.PathLike | BinaryIO) -> int | None:
    """The bits of a sample or index in a PNG, 1 to 16. Returns None as `read_rgb` does."""
    with _open(file) as opened:
        header = opened.read(_HEADER)
        opened.seek(0)
    return header[-2] if len(header) == _HEADER and header[:8] == _SIGNATURE else None


def may_be_turned(file: str | os.PathLike | BinaryIO) -> bool:
    """Whether a file may have a note on its orientation: False only for a PNG without one.

    Little more than the names of its parts is read, while Pillow decodes a whole PNG to look for
    such a note. Raises OSError where the file cannot be read.
    """
    with _open(file) as opened:
        is_png = opened.read(len(_SIGNATURE)) == _SIGNATURE
        turned = not is_png or _has_notes(opened)
        opened.seek(0)
    return turned


def _decode(encoded: bytes, channels: int) -> np.ndarray | None:
    try:
        context = tensorstore.Context()  # with an in-memory store of its own
        place = {"driver": "memory", "path": "image"}
        tensorstore.KvStore.open({"driver": "memory"}, context=context).result()["image"] = encoded
        opened = tensorstore.open({"driver": "png", "kvstore": place}, context=context).result()
        return opened.read().result() if opened.shape[2] == channels else None
    except _DECODER_ERRORS:
        return None


def _encoded(file, types: tuple[int, ...]) -> bytes | None:
    """The content of a PNG of 8 bits and one of these colour types, None for other files.

    None also for a file with notes on its orientation, which Pillow follows.
    """
    try:
        with _open(file) as opened:
            header = opened.read(_HEADER)
            fits = header[:8] == _SIGNATURE and header[24:] in [bytes([8, kind]) for kind in types]
            fits = fits and not _has_notes(opened)
            opened.seek(0)
            encoded = opened.read() if fits else None
            opened.seek(0)
    except OSError:
        return None
    return encoded


def _has_notes(file: BinaryIO) -> bool:
    """Whether a PNG has parts in which Pillow looks for an orientation."""
    return any(
        kind in _NOTES and file.read(len(_NOTES[kind])) == _NOTES[kind] for kind, _ in _parts(file)
    )


def _parts(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and length of the parts of a PNG; the file stands at the content of each."""
    place = len(_SIGNATURE)
    while True:
        file.seek(place)
        start = file.read(8)
        if len(start) < 8:
            return
        length = int.from_bytes(start[:4], "big")
        yield start[4:], length
        place += length + 12  # length, name and checksum


def _open(file):
    """A context with the file opened at its beginning; a file that was open stays so."""
    if not hasattr(file, "read"):
        return open(file, "rb")
    file.seek(0)
    return contextlib.nullcontext(file)


def _palette(encoded: bytes) -> bytes:
    """The palette of a PNG that has been decoded; empty where there is none."""
    file = io.BytesIO(encoded)
    return next((file.read(length) for kind, length in _parts(file) if kind == b"PLTE"), b"")
