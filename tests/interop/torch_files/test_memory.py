"""How much memory a large PyTorch file takes while it is read and copied."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.interop import load_torch_file, release_pages, save_torch_file

FILES = Path(__file__).parents[1] / "files"
F32 = np.float32

_LEGACY_HEAD = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
)


def legacy_file(path, arrays):
    """A legacy file of float32 vectors, its keys the storages' keys."""
    entries, texts = b"", {key: b"X" + len(key).to_bytes(4, "little") + key for key in arrays}
    for key, array in arrays.items():
        numel = b"J" + array.size.to_bytes(4, "little")
        identity = b"(U\x07storagectorch\nFloatStorage\n%sU\x03cpu%sNtQ" % (texts[key], numel)
        view = b"(%sK\x00%s\x85K\x01\x85\x89}tR" % (identity, numel)
        entries += texts[key] + b"ctorch._utils\n_rebuild_tensor_v2\n" + view
    with open(path, "wb") as file:
        file.write(_LEGACY_HEAD + b"\x80\x02}(" + entries + b"u.")
        file.write(b"\x80\x02](" + b"".join(texts.values()) + b"e.")
        for array in arrays.values():
            file.write(array.size.to_bytes(8, "little") + memoryview(array).cast("B"))


_MEASURE = """
import json, resource, sys
from dasac_jax.interop import load_torch_file, release_pages

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
arrays = load_torch_file(sys.argv[1], mmap=sys.argv[2] == "mapped")
loaded = peak()
if sys.argv[2] == "mapped":
    copies = {}
    for name, array in arrays.items():
        copies[name] = array.copy()
        release_pages(array)
else:
    copies = arrays
total = sum(float(array.sum(dtype="float64")) for array in copies.values())
print(json.dumps({"loaded": loaded - before, "copied": peak() - before, "total": total}))
"""


@pytest.mark.parametrize("how", ["mapped", "read"])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_resident_memory(tmp_path, kind, how):
    """A file of 200 MB, every array of which is copied, takes no more than 1.3 times its size."""
    block, path = np.ones(5_000_000, F32), tmp_path / "large.pth"
    if kind == "zip":
        save_torch_file(path, {str(index): block for index in range(10)})
    else:
        legacy_file(path, {str(index).encode(): block for index in range(10)})
    size = path.stat().st_size
    assert size > 200_000_000

    ended = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), how],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip

    path.unlink()
    measured = json.loads(ended.stdout)
    assert measured["total"] == 50_000_000
    assert measured["copied"] <= 1.3 * size
    assert measured["loaded"] <= (0.3 if how == "mapped" else 1.3) * size


def test_released_arrays_can_still_be_read():
    views = load_torch_file(FILES / "zip.pth")["views"]
    release_pages(views["turned"])
    np.testing.assert_array_equal(views["turned"], np.arange(24, dtype=F32).reshape(4, 6).T)
    release_pages(np.zeros(3))  # of no file
