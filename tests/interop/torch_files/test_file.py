"""PyTorch files of both formats, read and written without PyTorch."""

import tarfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file, save_torch_file

FILES = Path(__file__).parents[1] / "files"
BOTH = pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
F32 = np.float32


def same(ours, theirs, where=""):
    """Equal in structure, types, shapes and values."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        assert [(type(key), key) for key in ours] == [(type(key), key) for key in theirs], where
        for key in theirs:
            same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{where}/{index}")
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype, where
        np.testing.assert_array_equal(ours, theirs, strict=True, err_msg=where)
    else:
        assert ours == theirs, where


def snapshot():
    """What make_files.py put into zip.pth and legacy.pth."""
    base = np.arange(24, dtype=F32)
    dtypes = [
        np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16, np.int8,
        np.uint8, np.bool_, np.complex64,
    ]  # fmt: skip
    return {
        "model": {
            "weight": np.array([1, 1], F32),
            "bias": np.array([-1, -1], F32),
            "running_mean": np.array([0.1, 0.3], F32),
            "running_var": np.array([1.1, 1.7], F32),
            "num_batches_tracked": np.array(1),
        },
        "views": {
            "whole": base,
            "middle": base[4:10].reshape(2, 3),
            "turned": base.reshape(4, 6).T,
            "every_third": base[1::3],
            "expanded": np.full((2, 2), 3, F32),
        },
        "weight": np.array([[1.5, -2]], F32),
        "dtypes": [np.array([1, 0, 3]).astype(dtype) for dtype in dtypes],
        "newer": [np.array([1, 0, 3]).astype(d) for d in (np.uint16, ml_dtypes.float8_e4m3fn)],
        "scalar": np.array(7),
        "empty": np.empty((0, 3), F32),
        "plain": (1, -2, 3.5, True, None, "é", b"\xff", 1 << 70, [(), {}]),
        "epoch": 136,
    }


@BOTH
@pytest.mark.parametrize("mmap", [True, False])
def test_snapshot(name, mmap):
    value, expected = load_torch_file(FILES / name, mmap=mmap), snapshot()
    if name == "legacy.pth":
        del expected["newer"]
    optimiser = value.pop("optimizer")
    model = value["model"]
    for statistic in ("running_mean", "running_var"):  # 0.1 × 3 is not 0.3
        np.testing.assert_allclose(model[statistic], expected["model"][statistic], rtol=1e-6)
        model[statistic] = expected["model"][statistic]
    same(value, expected)
    buffers = [state["momentum_buffer"] for state in optimiser["state"].values()]
    same(buffers, [np.zeros(2, F32), np.full(2, 2, F32)])
    assert optimiser["param_groups"][0]["params"] == [0, 1]


@BOTH
def test_what_shares_a_storage_shares_memory(name):
    views = load_torch_file(FILES / name)["views"]
    assert all(np.shares_memory(views["whole"], view) for view in views.values())
    assert not any(view.flags.writeable for view in views.values())


def test_numpy_scalars_and_arrays():
    expected = {
        "00001.png": {np.int64(0): np.float64(0.25), np.int64(13): np.float64(0.75)},
        np.str_("00002.png"): {np.uint8(7): np.float32(1.0)},
        "arrays": [
            np.arange(6, dtype=np.int16).reshape(2, 3),
            np.arange(6.0).reshape(2, 3),
            np.arange(3, dtype=F32),
            np.array(["a", "bcd"]),
            np.empty((0, 2)),
        ],
    }
    same(load_torch_file(FILES / "weights.data"), expected)


def test_numpy_scalars_of_either_numpy(tmp_path):
    """Numpy 1 and 2 keep their constructors in different modules."""
    path, names = tmp_path / "weights.data", (b"numpy._core.multiarray", b"numpy.core.multiarray")
    with (
        zipfile.ZipFile(FILES / "weights.data") as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for name in old.namelist():
            assert (names[0] in old.read(name)) == name.endswith("data.pkl")
            new.writestr(name, old.read(name).replace(*names))
    same(load_torch_file(path), load_torch_file(FILES / "weights.data"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty: fetch the file again"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page instead of the file"),
        (b"<?xml version='1.0'?><Error/>", "a web page instead of the file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "a numpy array, not a PyTorch file"),
        (b"\x12\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"shape":[]}}', "a safetensors file"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (bytes(2000), "zeros: an unfinished download"),
        (b"hello world, 12345", r"not a PyTorch file: it starts with 'hello world, 123'"),
        (b"\x80\x02}q\x00.", "a Python pickle, but not one of torch.save"),
        (b"PK\x03\x04" + bytes(100), "truncated: the directory at the end"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path}: {message}") as caught:
        load_torch_file(path)
    assert "\n" not in str(caught.value)


def test_other_archives(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.add(FILES / "make_files.py", "storages")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81.")
        archive.writestr("script/constants.pkl", b"\x80\x02).")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", b"hello")
    for name, message in {
        "a.npz": r"a numpy \.npz archive",
        "old.pth": "of the tar format of PyTorch before 0.1.10",
        "script.pt": "a TorchScript archive; save the module's state_dict",
        "other.zip": "a zip archive, but not one of torch.save",
    }.items():
        with pytest.raises(UserError, match=message):
            load_torch_file(tmp_path / name)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.pth: No such file"):
        load_torch_file(tmp_path / "none.pth")
    with pytest.raises(UserError, match="a folder, not a file; --to-torch"):
        load_torch_file(tmp_path)


@BOTH
def test_truncated_anywhere(tmp_path, name):
    whole, path = (FILES / name).read_bytes(), tmp_path / name
    for length in range(4, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r": (truncated|corrupted)"):
            load_torch_file(path)


def test_big_endian(tmp_path):
    with (
        zipfile.ZipFile(FILES / "zip.pth") as old,
        zipfile.ZipFile(tmp_path / "big.pth", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(UserError, match="written on a big-endian machine"):
        load_torch_file(tmp_path / "big.pth")

    legacy = (FILES / "legacy.pth").read_bytes()
    place = legacy.index(b"little_endian") + len(b"little_endian")
    assert legacy[place : place + 3] == b"q\x02\x88"  # kept, then True
    (tmp_path / "old.pth").write_bytes(legacy[:place] + b"q\x02\x89" + legacy[place + 3 :])
    with pytest.raises(UserError, match="written on a big-endian machine"):
        load_torch_file(tmp_path / "old.pth")


def test_a_flipped_bit_of_a_weight_in_a_zip_file(tmp_path):
    whole = bytearray((FILES / "zip.pth").read_bytes())
    place = whole.index(np.arange(24, dtype=F32).tobytes()) + 41
    whole[place] ^= 1
    (tmp_path / "zip.pth").write_bytes(whole)
    with pytest.raises(UserError, match=r"corrupted: the checksum of its entry zip/data/\d+ is"):
        load_torch_file(tmp_path / "zip.pth")


def test_a_legacy_storage_of_another_size(tmp_path):
    whole = bytearray((FILES / "legacy.pth").read_bytes())
    place = whole.index((24).to_bytes(8, "little") + np.arange(24, dtype=F32).tobytes())
    whole[place] = 23
    (tmp_path / "legacy.pth").write_bytes(whole)
    with pytest.raises(UserError, match="has 23 elements, its pickle says 24"):
        load_torch_file(tmp_path / "legacy.pth")


def test_strings_of_python_2(tmp_path):
    """Files of 2017 hold byte strings where newer ones hold text."""
    legacy = (FILES / "legacy.pth").read_bytes()
    old = legacy
    for text in (b"storage", b"cpu", b"running_mean", b"little_endian"):
        new = b"X" + len(text).to_bytes(4, "little") + text
        assert new in old
        old = old.replace(new, b"U" + bytes([len(text)]) + text)
    (tmp_path / "old.pth").write_bytes(old)
    same(load_torch_file(tmp_path / "old.pth"), load_torch_file(FILES / "legacy.pth"))


def test_written_and_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "conv.weight": rng.normal(size=(4, 3, 3, 2)).astype(F32).transpose(0, 3, 1, 2),
        "scalar": np.array(3),
        "empty": np.empty((0, 3), np.float16),
        "big": np.arange(3, dtype=">i4"),
        "é": np.array([1, 2], ml_dtypes.bfloat16),
        "mask": np.array([True, False]),
        "counts": np.array([1, 2], np.uint32),
    }
    path = tmp_path / "weights.pth"
    save_torch_file(path, arrays)
    expected = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    same(load_torch_file(path), expected)

    first = path.read_bytes()
    save_torch_file(path, arrays)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert (entry.header_offset + 30 + len(entry.filename) + len(entry.extra)) % 64 == 0


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match="entry 'a': PyTorch has no dtype object"):
        save_torch_file(path, {"a": np.array([None])})
    with pytest.raises(UserError, match="entry 3: its name is not a string"):
        save_torch_file(path, {3: np.zeros(2)})
    with pytest.raises(UserError, match=r"cannot write .*none/weights\.pth: No such file"):
        save_torch_file(tmp_path / "none" / "weights.pth", {"a": np.zeros(2)})
    assert not list(tmp_path.iterdir())
