"""Tensors and archives of PyTorch files that do not add up are refused, and whole ones read."""

import struct
import zipfile
import zlib

import numpy as np
import pytest
from torch_pickles import FLOATS, HEAD, refused, tensor, write

from dasac_jax.interop import load_torch_file


def test_a_whole_tensor(tmp_path):
    path = write(tmp_path / "a.pth", HEAD + tensor(1, (3,)) + b".")
    np.testing.assert_array_equal(load_torch_file(path), FLOATS[1:])


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"size": (5,)}, r"a tensor of shape \(5,\) leaves its storage '0' of 16 bytes"),
        ({"offset": 1}, "leaves its storage"),
        ({"offset": 1 << 40, "size": (1,)}, "leaves its storage"),
        ({"stride": (2,)}, "leaves its storage"),
        ({"size": (2, 2), "stride": (1 << 45, 1)}, "leaves its storage"),
        ({"stride": (-1,), "offset": 3}, "makes no sense"),
        ({"offset": -1}, "makes no sense"),
        ({"size": (-4,)}, "makes no sense"),
        ({"size": (2, 2)}, "makes no sense"),  # with one stride
        ({"size": (1 << 62, 4), "stride": (0, 1)}, "makes no sense"),
        ({"size": (1 << 30, 0, 1 << 30), "stride": (0, 0, 0)}, "makes no sense"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "makes no sense"),
        ({"size": (1 << 30,), "stride": (0,)}, "far more than the file holds"),
        ({"numel": 5}, "its storage '0' has 16 bytes, its pickle says 20"),
        ({"numel": -1}, "makes no sense"),
        ({"numel": 1 << 62}, "makes no sense"),
        ({"key": b"1"}, "its entry a/data/1 is missing"),
        ({"key": b"../0\n"}, "makes no sense"),
        ({"kind": b"torch\nfloat32\n"}, "makes no sense"),
        ({"kind": b"torch\nQInt8Storage\n"}, r"asks for torch\.QInt8Storage"),
    ],
)
def test_tensors_outside_their_storage(tmp_path, view, message):
    refused(write(tmp_path / "a.pth", HEAD + tensor(**view) + b"."), message)


def test_a_bool_that_is_neither(tmp_path):
    view = tensor(size=(2,), numel=2, kind=b"torch\nBoolStorage\n")
    path = write(tmp_path / "a.pth", HEAD + view + b".", {"0": np.array([1, 0], np.uint8)})
    np.testing.assert_array_equal(load_torch_file(path), [True, False], strict=True)
    write(path, HEAD + view + b".", {"0": np.array([1, 3], np.uint8)})
    refused(path, "holds other numbers than 0 and 1")


def test_archives_that_torch_does_not_write(tmp_path):
    operations, path = HEAD + tensor() + b".", tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", operations)
        archive.writestr("a/data/0", bytes(10_000_000))
    refused(path, "its entry a/data.pkl is compressed or encrypted")

    write(path, operations)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data/0", bytes(16))
    refused(path, "it has two entries a/data/0")

    write(path, operations, **{"data/0/data.pkl": b"N."})
    load_torch_file(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b/data.pkl", b"N.")
    refused(path, "not one of torch.save")

    write(path, operations, byteorder=b"middle")
    refused(path, "written on a middle-endian machine")

    path.write_bytes(write(path, operations).read_bytes() + b"more")
    refused(path, "something follows the zip archive")


def test_entries_that_overlap(tmp_path):
    """Entries that all end where the last one does: together far more than the file."""
    names = [b"a/data.pkl", *(b"a/data/%d" % index for index in range(8))]
    tag = struct.Struct("<5H3L2H")
    headers = [
        b"PK\x03\x04" + tag.pack(20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name for name in names
    ]
    data, directory, begin = b"".join(headers) + b"N." + bytes(4096), b"", 0
    for name, header in zip(names, headers, strict=True):
        body = data[begin + len(header) :]
        sizes = (zlib.crc32(body), len(body), len(body), len(name))
        fields = (20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, begin)
        directory += b"PK\x01\x02" + struct.pack("<6H3L5H2L", *fields) + name
        begin += len(header)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 9, 9, len(directory), len(data), 0)
    (tmp_path / "a.pth").write_bytes(data + directory + end)
    refused(tmp_path / "a.pth", "its zip directory makes no sense")


def test_an_entry_that_is_another(tmp_path):
    path = write(tmp_path / "a.pth", HEAD + tensor() + b".", {"0": FLOATS, "1": FLOATS})
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    one, two = (data.index(b"a/data/%d" % index, first) for index in range(2))
    offset = slice(one - 4, one)  # the last field before an entry's name
    data[offset] = data[two - 4 : two]
    path.write_bytes(data)
    refused(path, "its entry a/data/0 is not there")


def test_without_checksums(tmp_path):
    """PyTorch can leave them out; zeros stand in their place."""
    path = write(tmp_path / "a.pth", HEAD + tensor() + b".")
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 16 : place + 20] = bytes(4)
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)
    np.testing.assert_array_equal(load_torch_file(path), FLOATS)
