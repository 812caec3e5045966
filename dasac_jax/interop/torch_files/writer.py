"""Writes a state_dict in the zip format of torch.save, without PyTorch."""

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.files import replacing
from dasac_jax.interop.torch_files.values import DTYPES, STORAGE_CLASSES

_ALIGNMENT = 64  # of every storage in the file, as PyTorch writes them
_LOCAL_HEADER = 30
_CHUNK = 16 << 20
_TORCH_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_torch_file(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray]) -> None:
    """Write {name: array} so that `torch.load(path, weights_only=True)` gives it as tensors.

    Every array becomes a contiguous tensor of its own, of the same shape and dtype. The same
    arrays give the same bytes. After an error no incomplete file is left.

    Raises UserError for a name that is no string, a dtype that PyTorch lacks, and where the file
    cannot be written.
    """
    path = Path(path)
    arrays = {name: _as_torch_dtype(name, array) for name, array in state_dict.items()}
    try:
        with (
            replacing(path) as unfinished,
            zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive,
        ):
            _write(archive, "data.pkl", _pickle(arrays))
            _write(archive, "byteorder", b"little")
            for index, array in enumerate(arrays.values()):
                raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                _write(archive, f"data/{index}", memoryview(raw))
            _write(archive, "version", b"3\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _as_torch_dtype(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(name, str):
        raise UserError(f"state_dict entry {name!r}: its name is not a string")
    array = np.asarray(array)
    if array.dtype.newbyteorder("=") not in _TORCH_NAMES:
        raise UserError(f"state_dict entry {name!r}: PyTorch has no dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _write(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Write one entry in pieces, with its content at a multiple of 64 bytes."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    large = len(content) >= zipfile.ZIP64_LIMIT
    # PyTorch fills the gap with an extra field "FB"; before it a large entry has its zip64 field.
    begin = archive.fp.tell() + _LOCAL_HEADER + len(entry.filename) + 4 + (20 if large else 0)
    gap = -begin % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", gap) + bytes(gap)
    entry.file_size = len(content)
    with archive.open(entry, "w", force_zip64=large) as file:
        for start in range(0, len(content), _CHUNK):
            file.write(content[start : start + _CHUNK])


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The dictionary pickled with protocol 2, operation by operation.

    Python's pickle module could not write it: the names in it exist only in PyTorch.
    """
    entries = (
        _text(name) + _tensor(str(index), array)
        for index, (name, array) in enumerate(arrays.items())
    )
    items = pickle.MARK + b"".join(entries) + pickle.SETITEMS
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + items + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    dtype = array.dtype.newbyteorder("=")
    kind = STORAGE_CLASSES.get(dtype)
    # Newer dtypes have no storage classes of their own: their storages are untyped, of bytes.
    numel = array.size if kind else array.nbytes
    storage = _global("torch", kind) if kind else _global("torch.storage", "UntypedStorage")
    identity = _tuple(_text("storage"), storage, _text(key), _text("cpu"), _integer(numel))
    strides = np.cumprod((1, *(max(size, 1) for size in array.shape[:0:-1])))[::-1]
    hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = [
        identity + pickle.BINPERSID,
        _integer(0),
        _tuple(*map(_integer, array.shape)),
        _tuple(*(map(_integer, strides.tolist()) if array.ndim else ())),
        pickle.NEWFALSE,
        hooks,
    ]
    if not kind:
        arguments.append(_global("torch", _TORCH_NAMES[dtype]))
    version = "v2" if kind else "v3"
    rebuild = _global("torch._utils", f"_rebuild_tensor_{version}")
    return rebuild + _tuple(*arguments) + pickle.REDUCE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    """An integer ≥ 0."""
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x09" + value.to_bytes(9, "little")
