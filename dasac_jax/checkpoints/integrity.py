"""Sizes and checksums that tell whether a checkpoint is as it was written.

Orbax restores some changed bytes without an error. So each step's folder holds the sizes and
checksums of all its files, in files.json, and its metadata hold a checksum of the arrays.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM_FILE = "files.json"
_PIECE_BYTES = 1 << 20


def sums(folder: Path) -> dict[str, list[int]]:
    """{name below the folder: [bytes, CRC-32]} of all its files, which are flushed to disk.

    Raises OSError where one cannot be read.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = _sum(path)
        with open(path, "rb") as written:
            os.fsync(written.fileno())
    return files


def write_checksums(folder: Path, files: Mapping[str, list[int]]) -> None:
    """Write files.json: sizes and checksums of all files in a step's folder, as `sums` gives them.

    It holds {"files": {name: [bytes, CRC-32]}, "crc32": that of the files' JSON}. Raises
    OSError where it cannot be written.
    """
    with open(folder / CHECKSUM_FILE, "w", encoding="utf-8") as file:
        json.dump({"files": files, "crc32": _crc(files)}, file)
        file.flush()
        os.fsync(file.fileno())


def check(folder: Path, below: str = "") -> bool:
    """Check a step's files against its files.json; False where there is none, as in format 1.

    below: the sub-folder whose files are checked, all where it is not given. Raises ValueError
    naming the first file that is missing, cut off or changed, or OSError for one that cannot be
    read.
    """
    if not (folder / CHECKSUM_FILE).exists():
        return False
    files = _read_checksums(folder)
    for name, (size, crc) in files.items():
        if not name.startswith(below):
            continue
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, written were {size}")
        if _sum(path) != [size, crc]:
            raise ValueError(f"{name} holds other bytes than were written")
    return True


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over names, types, shapes and bytes of all arrays."""
    value = 0
    for key in sorted(arrays):
        array = np.asarray(arrays[key])
        value = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), value)
        # A transposed array is read in pieces, so that there is no second copy of it in memory.
        for piece in [array] if array.flags.c_contiguous else array:
            value = zlib.crc32(np.ascontiguousarray(piece).reshape(-1).view(np.uint8), value)
    return value


def _read_checksums(folder: Path) -> dict[str, list[int]]:
    """The content of files.json. Raises ValueError where it is damaged itself."""
    try:
        record = json.loads((folder / CHECKSUM_FILE).read_text(encoding="utf-8"))
        files, crc = record["files"], record["crc32"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{CHECKSUM_FILE} is not as it was written") from error
    if crc != _crc(files):
        raise ValueError(f"{CHECKSUM_FILE} is not as it was written")
    return files


def _crc(record: Any) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _sum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size = crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]
