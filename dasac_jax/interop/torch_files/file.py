"""Reads PyTorch files as numpy arrays, without PyTorch and without running any code in them."""

import mmap as mapping
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop.torch_files.legacy_format import load_legacy
from dasac_jax.interop.torch_files.scan import FormatError
from dasac_jax.interop.torch_files.zip_format import load_zip

_HEAD = 1024
_PROTOCOL_2 = 0x80  # the first byte of a pickle of protocol 2 or later
_OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file: fetch it with `git lfs pull`",
    b"\x93NUMPY": "a numpy array, not a PyTorch file",
    b"\x89HDF": "an HDF5 file, not a PyTorch file",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
}


def load_torch_file(path: str | os.PathLike, *, mmap: bool = True) -> Any:
    """Read what torch.save wrote: dictionaries, lists, tuples, scalars and numpy arrays.

    Both formats are read. OrderedDicts become dictionaries, tensors and Parameters arrays of the
    same shape and dtype (bfloat16 and float8 are ml_dtypes'), torch.Size a tuple, a device a
    string, a program's arguments (argparse) and paths None; tensors that share a storage share
    memory. The arrays are read-only views: of the mapped file, which must not be changed, or with
    `mmap=False` of a copy in memory. `release_pages` keeps the resident memory small while a large
    file is converted.

    Raises UserError where the file cannot be read, is of another kind, or is truncated or
    corrupted. A file whose pickle asks for a name that no file of tensors needs is refused before
    any object is built. The zip format's checksums are compared; the legacy format has none.
    """
    path = Path(path)
    try:
        data = _open(path, mmap)
        other = _recognise_other(bytes(data[:_HEAD]), len(data))
        if other:
            raise FormatError(other)
        if data[:4] == b"PK\x03\x04":
            return load_zip(data, lambda: _release(data.obj))
        return load_legacy(data)
    except FormatError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def release_pages(array: np.ndarray) -> None:
    """Free the memory of the mapped file that `array` belongs to; its values stay readable.

    Call it after copying an array of a large file, so that the pages that were read do not pile up.
    """
    owner: Any = array
    while isinstance(owner, (np.ndarray, memoryview)):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    _release(owner)


def _release(owner: Any) -> None:
    # Without madvise the pages are freed together with the array.
    if isinstance(owner, mapping.mmap) and hasattr(owner, "madvise"):
        owner.madvise(mapping.MADV_DONTNEED)


def _open(path: Path, mapped: bool) -> memoryview:
    # Checked before the file is opened: opening a named pipe would wait for a writer.
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise FormatError("a folder, not a file; --to-torch or --to-safetensors makes a file of it")
    if not stat.S_ISREG(mode):
        raise FormatError("not a file")
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise FormatError("empty: fetch the file again")
        if not mapped:
            return memoryview(file.read())
        return memoryview(mapping.mmap(file.fileno(), 0, access=mapping.ACCESS_READ))


def _recognise_other(head: bytes, size: int) -> str | None:
    """What a file of another kind is, by its first bytes; None for a zip archive or a pickle."""
    for start, what in _OTHER_FILES.items():
        if head.startswith(start):
            return what
    if head.startswith(b"PK\x03\x04"):
        return None
    if head[257:262] == b"ustar":
        return "of the tar format of PyTorch before 0.1.10: load and save it with a newer one"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "a safetensors file, not a PyTorch file"
    if head[0] == _PROTOCOL_2:
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        return "a web page instead of the file: open its address in a browser to see what it says"
    if not any(head):
        return "zeros: an unfinished download, fetch the file again"
    return f"not a PyTorch file: it starts with {ascii(head[:16])[1:]}"
