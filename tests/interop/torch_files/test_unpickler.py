"""Hostile and broken PyTorch files: refused by name, before anything runs or grows."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file

FILES = Path(__file__).parents[1] / "files"
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


@pytest.mark.parametrize(
    ("name", "asked"), [("hostile_zip.pth", "posix.system"), ("hostile_legacy.pth", "eval")]
)
def test_hostile_files(tmp_path, monkeypatch, name, asked):
    monkeypatch.chdir(tmp_path)
    refused(FILES / name, rf"asks for \S*{asked}, which is no part of tensors: refused before")
    assert not list(tmp_path.iterdir())


def test_a_hostile_pickle_that_is_no_file_of_torch(tmp_path):
    (tmp_path / "a.pth").write_bytes(HEAD + b"cos\nsystem\nX\x02\x00\x00\x00id\x85R.")
    refused(tmp_path / "a.pth", r"asks for os\.system")


@pytest.mark.parametrize(
    ("operations", "asked"),
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"c__builtin__\nexec\n.", "__builtin__.exec"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "torch._utils._rebuild_sparse_tensor"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cmodels\nNet\n)\x81}b.", "models.Net"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),  # after an operation that is refused itself
        (b"\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.", "os.system"),
        (b"\x8c\x02osq\x07\x8c\x06systemq\x09\x8c\x01xh\x07h\x09\x93.", "os.system"),
        (b"c\n\n.", "."),
        (b"cos\nsys\x07tem\n.", r"'os.sys\x07tem'"),
    ],
)
def test_names_that_are_not_allowed(tmp_path, operations, asked):
    with pytest.raises(UserError) as caught:
        load_torch_file(write(tmp_path / "a.pth", HEAD + operations))
    assert f"its pickle asks for {asked}, which is no part of tensors" in str(caught.value)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (b"\x8c\x02os(\x8c\x06systeme\x93.", "asks for a name that it computes"),
        (b"N\x93.", "asks for a name that it computes"),
        (b"\x82\x01.", "uses EXT1, an operation"),
        (b"(o.", "uses OBJ, an operation"),
        (b"}}}\x92.", "uses NEWOBJ_EX, an operation"),
        (b"I1\n.", "uses INT, an operation"),
        (b"N2.", "uses DUP, an operation"),
        (b"\x8b\x04\x00\x00\x00\x01\x00\x00\x00.", "uses LONG4, an operation"),
        (b"\xff.", "makes no sense at byte 2"),
        (b"\x80\x06N.", "makes no sense"),
        (b"N0.", "makes no sense"),
        (b"c" + b"x" * 300, "has a name without an end"),
        (b"X\x02\x00\x00\x00\xff\xff.", "makes no sense"),
        (b"NN.", "makes no sense"),
        (b"(N.", "makes no sense"),
        (b"h\x05.", "makes no sense"),
        (b".", "makes no sense"),
        (b"N", "a pickle in it runs past the end"),
        (b"N.N", "something follows its pickle"),
    ],
)
def test_broken_pickles(tmp_path, operations, message):
    refused(write(tmp_path / "a.pth", HEAD + operations), message)


@pytest.mark.parametrize(
    "operations",
    [
        b"ctorch\nfloat32\n)R.",  # a dtype is no function
        b"cbuiltins\nint\n)R.",
        b"Na.",
        b"NNNs.",
        b"]}b.",  # attributes of what is no object of ours
        b"cbuiltins\ndict\n}b.",
        b"ccollections\nOrderedDict\n}b.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"NQ.",
        b"ctorch\nSize\n(X\x01\x00\x00\x00atR.",
        b"ctorch\ndevice\n(]K\x01tR.",
        b"(X\x07\x00\x00\x00storageNNNNtQ.",
        b"}]Ns.",  # a list as a key
        b"}(NNNu.",
        b"ctorch\nFloatTensor\n}b.",
        b"ctorch.nn.parameter\nParameter\n(NtR.",
        b"cnumpy\ndtype\n(K\x01tR.",
        b"cnumpy._core.multiarray\nscalar\n(NNtR.",
    ],
)
def test_operations_on_what_they_are_not_for(tmp_path, operations):
    refused(write(tmp_path / "a.pth", HEAD + operations), "its pickle makes no sense")


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (b"ccollections\nOrderedDict\n.", "holds collections.OrderedDict where a value"),
        (b"ctorch\nFloatTensor\n)R.", "holds tensor where a value"),
        (b"(X\x06\x00\x00\x00moduleNNNtQ.", "it holds a whole module"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.", "holds a numpy array of dtype O8"),
    ],
)
def test_values_that_are_not_read(tmp_path, operations, message):
    refused(write(tmp_path / "a.pth", HEAD + operations), message)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (b"X\xff\xff\xff\x7f.", "runs past the end"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "runs past the end"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "runs past the end"),
        (b"Nr\xff\xff\xff\x7f0N.", None),  # a kept value that nobody reads takes no room
        (b"]" * 100_000 + b"a" * 99_999 + b".", "little but empty containers"),
        (b"N" + b"\x85" * 100_000 + b".", "little but empty containers"),
        (b"(" * 100_000 + b"t" * 100_000 + b".", "nests too deeply"),
        (b"]" + b"q\x00h\x00\x86" * 70 + b".", "nested deeper than 64"),
        (b"]" + b"q\x00h\x00\x86" * 40 + b".", "its shared containers unfold to"),
        (b"]q\x00h\x00a.", "contains itself"),
        (b"}q\x00Nh\x00s.", "contains itself"),
        (b"N" * ((1 << 24) + 1) + b".", "more than 16777216 operations"),
    ],
)
def test_pickles_that_would_grow(tmp_path, operations, message):
    path = write(tmp_path / "a.pth", HEAD + operations)
    if message:
        refused(path, message)
    else:
        load_torch_file(path)


def test_the_same_long_copy_again_and_again(tmp_path):
    call = b"h\x00h\x01h\x02\x86Ra"
    start = b"]c_codecs\nencode\nq\x00" + text(b"x" * 1000) + b"q\x01" + text(b"latin1") + b"q\x02"
    refused(write(tmp_path / "a.pth", HEAD + start + b"000" + call * 100 + b"."), "again and again")


def test_integers_of_one_hash(tmp_path):
    """Multiples of 2⁶¹ − 1 all have the hash 0: as keys, many of them would take minutes."""
    keys = b"".join(integer(i * ((1 << 61) - 1)) + b"N" for i in range(100))
    refused(write(tmp_path / "a.pth", HEAD + b"}(" + keys + b"u."), "makes no sense")


@pytest.mark.parametrize("key", [text(b"x" * 5000), b"(G" + bytes(8) + b"t", b"]"])
def test_keys_that_are_long_or_no_keys(tmp_path, key):
    refused(write(tmp_path / "a.pth", HEAD + b"}" + key + b"Ns."), "makes no sense")


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
