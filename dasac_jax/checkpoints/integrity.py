"""Whether a step's folder is as it was written: orbax restores some changed bytes silently."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from dasac_jax.files import flush, replacing, size_and_crc32

CHECKSUM_FILE = "files.json"
METADATA_FILE = "metadata/metadata"


def seal(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write files.json, the last file of a step, when all others are flushed to disk.

    It holds {"files": {name: [bytes, CRC-32]}, "arrays": {name: CRC-32}, "crc32": of these two}.
    """
    found = [path for path in folder.rglob("*") if path.is_file()]
    files = {str(path.relative_to(folder)): size_and_crc32(path) for path in found}
    record = {"files": files, "arrays": {key: checksum({key: arrays[key]}) for key in arrays}}
    for path in (*folder.rglob("*"), folder):
        flush(path)
    with replacing(folder / CHECKSUM_FILE) as place:
        place.write_text(json.dumps(record | {"crc32": _crc(record)}), encoding="utf-8")
        flush(place)
    flush(folder)
    flush(folder.parent)


def is_whole(folder: Path) -> bool:
    """Whether a step's folder was written to its end; damage is not looked for."""
    try:  # format 1 had no files.json, and did not name its format
        return (folder / CHECKSUM_FILE).exists() or "format" not in read_json(folder)
    except (OSError, ValueError):
        return False


def read_json(folder: Path, name: str = METADATA_FILE) -> dict[str, Any]:
    """The content of a JSON file of a step's folder."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def check(folder: Path, below: str = "") -> None:
    """Check a step's files, or those in the sub-folder `below`, against its files.json.

    Raises ValueError naming the first file that is missing, cut off or changed and the arrays that
    it has spoilt, or OSError for one that cannot be read.
    """
    if not is_whole(folder):
        raise ValueError(f"{CHECKSUM_FILE} is missing: it was removed, or writing has not ended")
    files, arrays = _read(folder) if (folder / CHECKSUM_FILE).exists() else ({}, {})
    for name in (name for name in files if name.startswith(below)):
        found = size_and_crc32(folder / name) if (folder / name).is_file() else None
        if found == files[name]:
            continue
        problem = "holds other bytes than were written" if found else "is missing"
        spoilt = [x for x in arrays if name.startswith("state/") and _is_spoilt(folder, x, arrays)]
        named = ", ".join(spoilt[:3]) + (f" and {len(spoilt) - 3} more" if spoilt[3:] else "")
        raise ValueError(f"{name} {problem}" + (f"; array {named} is spoilt" if named else ""))


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over names, types, shapes and bytes of all arrays."""
    value = 0
    for key in sorted(arrays):
        array = np.asarray(arrays[key])
        value = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), value)
        for piece in [array] if array.flags.c_contiguous else array:  # without a second copy
            value = zlib.crc32(np.ascontiguousarray(piece).reshape(-1).view(np.uint8), value)
    return value


def _read(folder: Path) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The sums of files and of arrays. Raises ValueError where files.json is damaged itself."""
    try:
        record = read_json(folder, CHECKSUM_FILE)
        crc, files, arrays = record.pop("crc32"), record["files"], record.get("arrays", {})
        is_written = crc == _crc(record if "arrays" in record else files)  # none up to format 3
    except (ValueError, TypeError, KeyError, AttributeError):
        is_written = False
    if not is_written:
        raise ValueError(f"{CHECKSUM_FILE} is not as it was written")
    return files, arrays


def _is_spoilt(folder: Path, key: str, sums: Mapping[str, int]) -> bool:
    """Whether a stored array cannot be read any more, or is another one than was written."""
    path, base = key.replace("/", ".") + "/", (folder / "state").as_uri() + "/"
    spec = {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": path}}
    try:
        return checksum({key: tensorstore.open(spec).result().read().result()}) != sums[key]
    except ValueError:
        return True


def _crc(record: Any) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())
