"""Reads the format of torch.save before PyTorch 1.6: five pickles, and after them the storages.

It has no checksums: wrong sizes are noticed, but wrong numbers are not.
"""

from typing import Any

from dasac_jax.interop.torch_files.arrays import with_arrays
from dasac_jax.interop.torch_files.scan import FormatError
from dasac_jax.interop.torch_files.unpickler import read_pickle
from dasac_jax.interop.torch_files.values import NAMES, Storage, storage_of

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


def load_legacy(data: memoryview) -> Any:
    """Read a legacy file of torch.save. Raises FormatError."""
    magic, position = read_pickle(data, 0, names={})
    if type(magic) is not int or magic != _MAGIC:
        raise FormatError("a Python pickle, but not one of torch.save")
    version, position = read_pickle(data, position, names={})
    if type(version) is not int or version != _VERSION:
        raise FormatError(f"corrupted, or of a format version other than {_VERSION}")
    system, position = read_pickle(data, position, names={})
    if type(system) is not dict or system.get("little_endian") is not True:
        raise FormatError("written on a big-endian machine, or corrupted")
    first_uses: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        storage = storage_of(identity)
        # The file counts a storage's elements in the dtype of the first tensor that uses it.
        first_uses.setdefault(storage.key, storage)
        return storage

    start = position
    tree, position = read_pickle(data, position, names=NAMES, persistent=persistent)
    size = position - start
    keys, position = read_pickle(data, position, names={})
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise FormatError("corrupted: its list of storages holds something else")
    if sorted(keys) != sorted(first_uses):
        raise FormatError("corrupted: its list of storages does not fit its pickle")
    storages = {}
    for key in keys:
        storages[key], position = _storage(data, position, first_uses[key])
    if position != len(data):
        raise FormatError(f"corrupted: {len(data) - position} bytes follow its last storage")
    return with_arrays(tree, storages, pickle_size=size)


def _storage(data: memoryview, position: int, storage: Storage) -> tuple[memoryview, int]:
    """(the bytes of a storage, the position after it): 8 bytes say how many elements follow."""
    begin = position + 8
    numel = int.from_bytes(data[position:begin], "little", signed=True)
    end = begin + storage.whole * storage.dtype.itemsize
    if end > len(data):
        raise FormatError(
            f"truncated: {len(data)} bytes, its storage {storage.key!r} needs {end} or more"
        )
    if numel != storage.whole:
        raise FormatError(
            f"corrupted: its storage {storage.key!r} has {numel} elements, "
            f"its pickle says {storage.whole}"
        )
    return data[begin:end], end
