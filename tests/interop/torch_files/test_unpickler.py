"""Hostile and broken PyTorch files: refused by name, before anything runs or grows."""

import pytest
from torch_pickles import FILES, HEAD, integer, refused, text, write

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file


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
