"""PyTorch files made by hand, operation by operation, and how they are refused."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file

FILES = Path(__file__).parent / "interop" / "files"
HEAD = b"\x80\x02"
FLOATS = np.arange(4, dtype=np.float32)


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string


def integer(value):
    raw = value.to_bytes(12, "little", signed=True)
    return b"\x8a\x0c" + raw


def tensor(offset=0, size=(4,), stride=(1,), numel=4, key=b"0", kind=b"torch\nFloatStorage\n"):
    """The operations that rebuild a tensor."""
    numbers = [b"(" + b"".join(map(integer, values)) + b"t" for values in (size, stride)]
    identity = b"(" + text(b"storage") + b"c" + kind + text(key) + text(b"cpu") + integer(numel)
    view = b"(" + identity + b"tQ" + integer(offset) + b"".join(numbers) + b"\x89}t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + view + b"R"


def write(path, operations, storages=None, **others):
    """A zip file with this pickle, and its storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", operations)
        for key, array in ({"0": FLOATS} if storages is None else storages).items():
            archive.writestr(f"a/data/{key}", array.tobytes())
        for name, content in others.items():
            archive.writestr(f"a/{name}", content)
    return path


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_torch_file(path)
    assert str(caught.value).isprintable()
