"""Reads the zip format of torch.save: a pickle, and every storage as an uncompressed entry.

Entries are views of the mapped file: nothing is copied or unpacked.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dasac_jax.interop.torch_files.arrays import with_arrays
from dasac_jax.interop.torch_files.scan import FormatError, printable
from dasac_jax.interop.torch_files.unpickler import read_pickle
from dasac_jax.interop.torch_files.values import NAMES, Storage, storage_of

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_CHUNK = 4 << 20
_MAX_ENTRIES = 1 << 20


@dataclass(frozen=True)
class _Entry:
    """Where an entry's bytes lie in the file, and their CRC-32, if the file has checksums."""

    name: str
    start: int
    size: int
    crc: int | None


def load_zip(data: memoryview, release: Callable[[], None]) -> Any:
    """Read a zip archive of torch.save. Raises FormatError.

    Every entry that is used is compared with its checksum once. release: called after each to free
    the memory of the pages that were read.
    """
    entries = _entries(data)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FormatError(_not_torch(entries))
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries:
        raise FormatError("a TorchScript archive; save the module's state_dict() with torch.save")

    def content(name: str) -> memoryview:
        if prefix + name not in entries:
            raise FormatError(f"corrupted: its entry {prefix + name} is missing")
        raw = _checked(data, entries[prefix + name])
        release()
        return raw

    if f"{prefix}byteorder" in entries and (order := bytes(content("byteorder"))) != b"little":
        raise FormatError(f"written on a {order.decode('ascii', 'replace')}-endian machine")
    keys: dict[str, None] = {}

    def persistent(identity: Any) -> Storage:
        storage = storage_of(identity)
        keys[storage.key] = None
        return storage

    pickle = bytes(content("data.pkl"))
    tree, end = read_pickle(pickle, 0, names=NAMES, persistent=persistent)
    if end != len(pickle):
        raise FormatError("corrupted: something follows its pickle")
    storages = {key: content(f"data/{key}") for key in keys}
    return with_arrays(tree, storages, pickle_size=len(pickle))


def _not_torch(names: dict[str, _Entry]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "a numpy .npz archive, not a PyTorch file"
    return "a zip archive, but not one of torch.save: it has no data.pkl"


def _checked(data: memoryview, entry: _Entry) -> memoryview:
    """An entry's bytes, compared with its checksum."""
    raw, crc = data[entry.start : entry.start + entry.size], 0
    if entry.crc is not None:
        for start in range(0, len(raw), _CHUNK):
            crc = zlib.crc32(raw[start : start + _CHUNK], crc)
        if crc != entry.crc:
            raise FormatError(f"corrupted: the checksum of its entry {entry.name} is wrong")
    return raw


def _entries(data: memoryview) -> dict[str, _Entry]:
    """The entries of the central directory, each compared with its local header."""
    count, position, end = _directory(data)
    entries: dict[str, _Entry] = {}
    headers = []
    for _ in range(count):
        if position + _CENTRAL.size > end:
            raise FormatError("corrupted: its zip directory is cut short")
        fields = _CENTRAL.unpack_from(data, position)
        length = _CENTRAL.size + sum(fields[10:13])
        headers.append((fields, bytes(data[position + _CENTRAL.size : position + length])))
        position += length
    # PyTorch can be told to leave the checksums out; it then writes 0 for all.
    has_checksums = any(fields[7] for fields, _ in headers)
    for fields, tail in headers:
        entry = _entry(data, fields, tail, has_checksums)
        if entry.name in entries:
            raise FormatError(f"corrupted: it has two entries {entry.name}")
        entries[entry.name] = entry
    if position != end or sum(entry.size for entry in entries.values()) > len(data):
        raise FormatError("corrupted: its zip directory makes no sense")
    return entries


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(number of entries, start, end) of the central directory."""
    tail = bytes(data[-_END.size - 0xFFFF :])
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise FormatError("truncated: the directory at the end of the zip archive is missing")
    position = len(data) - len(tail) + found
    fields = _END.unpack_from(data, position)
    count, size, start, comment = fields[4:8]
    if position + _END.size + comment != len(data):
        raise FormatError("corrupted: something follows the zip archive")
    locator = position - _END64_LOCATOR.size
    if locator >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        position = _END64_LOCATOR.unpack_from(data, locator)[2]
        magic = bytes(data[position : position + 4])
        if position + _END64.size > locator or magic != b"PK\x06\x06":
            raise FormatError("corrupted: its zip directory is not where it should be")
        count, size, start = _END64.unpack_from(data, position)[7:10]
    if start + size != position or count > _MAX_ENTRIES or size < count * _CENTRAL.size:
        raise FormatError("corrupted: its zip directory is not where it should be")
    return count, start, position


def _entry(data: memoryview, fields: tuple, tail: bytes, has_checksums: bool) -> _Entry:
    """The entry of a directory record: its `fields`, and `tail` with the name and extra fields."""
    magic, _, _, flags, method, _, _, crc, packed, size, length, extra_length, *_, header = fields
    name, extra = tail[:length], tail[length : length + extra_length]
    shown = printable(name.decode("utf-8", "replace"))
    if magic != b"PK\x01\x02":
        raise FormatError("corrupted: its zip directory makes no sense")
    size, packed, header = _wide(extra, size, packed, header)
    if flags & 1 or method != 0 or packed != size:
        raise FormatError(f"its entry {shown} is compressed or encrypted; torch.save does neither")
    if header + _LOCAL.size > len(data):
        raise FormatError(f"truncated or corrupted: its entry {shown} is not there")
    local = _LOCAL.unpack_from(data, header)
    start = header + _LOCAL.size + local[9]
    if local[0] != b"PK\x03\x04" or bytes(data[header + _LOCAL.size : start]) != name:
        raise FormatError(f"corrupted: its entry {shown} is not there")
    start += local[10]
    if start + size > len(data):
        raise FormatError(f"truncated: its entry {shown} runs past the end")
    return _Entry(shown, start, size, crc if has_checksums else None)


def _wide(extra: bytes, *values: int) -> list[int]:
    """Size, packed size and offset, each out of the zip64 field where 32 bits cannot hold it."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            field = extra[4 : 4 + length]
            wide = [value for (value,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
        extra = extra[4 + length :]
    wide.reverse()
    if sum(value == 0xFFFFFFFF for value in values) > len(wide):
        raise FormatError("corrupted: its zip directory makes no sense")
    return [wide.pop() if value == 0xFFFFFFFF else value for value in values]
