"""Legacy streams, written by hand: views, sizes, and what follows."""

import pickle

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file

HEAD = b"\x80\x02"
FLOATS = np.arange(4, dtype=np.float32)


def refused(path, message):
    with pytest.raises(UserError, match=message):
        load_torch_file(path)


def stream(rebuilt, numel=4, keys=("0",)):
    """A legacy file with one storage of 16 bytes."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    tail = pickle.dumps(list(keys), protocol=2) + numel.to_bytes(8, "little") + FLOATS.tobytes()
    return head + HEAD + rebuilt + b"." + tail


def legacy_tensor(numel=4, view=b"N", kind=b"Float", size=1):
    """The operations that rebuild the tensor from the second element on."""
    identity = (
        b"(U\x07storagectorch\n%sStorage\nU\x010U\x03cpu" % kind
        + b"M"
        + numel.to_bytes(2, "little")
        + view
    )
    return b"ctorch._utils\n_rebuild_tensor\n(%stQK\x01K%c\x85K\x01\x85tR" % (identity, size)


def test_views_of_legacy_storages(tmp_path):
    """Old files may name a part of a storage: the part's key, where it begins, its size."""
    path = tmp_path / "a.pth"
    path.write_bytes(stream(legacy_tensor(view=b"(U\x011K\x02K\x02t")))
    np.testing.assert_array_equal(load_torch_file(path), FLOATS[3:])
    for outside in (b"(U\x011K\x03K\x02t", b"(U\x011J\xff\xff\xff\xffK\x02t", b"K\x01"):
        path.write_bytes(stream(legacy_tensor(view=outside)))
        refused(path, "makes no sense")
    path.write_bytes(stream(legacy_tensor(view=b"(U\x011K\x03K\x01t")))
    refused(path, "leaves its storage")


def test_legacy_storages_are_measured_in_what_they_are_first_used_as(tmp_path):
    path = tmp_path / "a.pth"
    as_bytes, as_floats = legacy_tensor(16, kind=b"Byte", size=15), legacy_tensor(size=3)
    path.write_bytes(stream(as_bytes + as_floats + b"\x86", numel=16))
    raw, floats = load_torch_file(path)
    assert raw.tobytes() == FLOATS.tobytes()[1:]
    np.testing.assert_array_equal(floats, FLOATS[1:])
    path.write_bytes(stream(as_floats + as_bytes + b"\x86", numel=16))
    refused(path, "its storage '0' has 16 elements, its pickle says 4")


def test_legacy_files_of_another_length(tmp_path):
    path, whole = tmp_path / "a.pth", stream(legacy_tensor())
    path.write_bytes(whole + b"more")
    refused(path, "corrupted: 4 bytes follow its last storage")
    path.write_bytes(whole[:-1])
    refused(path, f"truncated: {len(whole) - 1} bytes, its storage '0' needs {len(whole)} or more")
    for keys in ((), ("0", "1"), ("1",), ("0", "0")):
        path.write_bytes(stream(legacy_tensor(), keys=keys))
        refused(path, "its list of storages does not fit its pickle")
    path.write_bytes(stream(legacy_tensor(), keys=(0,)))
    refused(path, "its list of storages holds something else")
