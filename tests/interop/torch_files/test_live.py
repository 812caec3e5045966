"""Files that PyTorch writes and reads, against what is read and written here without it."""

import argparse
import io
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file, save_torch_file

pytestmark = pytest.mark.torch
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
    "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
]  # fmt: skip


def raw(torch, tensor):
    """The elements of a tensor as numpy bytes, in order."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    contiguous = plain.clone(memory_format=torch.contiguous_format)
    return contiguous.reshape(-1).view(torch.uint8).numpy().tobytes()


def same(torch, array, tensor, where=""):
    assert f"torch.{array.dtype}" == str(tensor.dtype), where
    assert array.shape == tuple(tensor.shape), where
    assert array.tobytes() == raw(torch, tensor), where


def random_tensor(torch, rng):
    """Some dtype, shape, and view of a storage."""
    dtype = getattr(torch, str(rng.choice(DTYPES)))
    shape = [int(n) for n in rng.integers(0, 6, rng.integers(0, 5))]
    count = int(np.prod(shape)) + int(rng.integers(0, 9))
    storage = torch.tensor(rng.integers(0, 2, count * dtype.itemsize), dtype=torch.uint8)
    flat = storage.view(dtype) if count else torch.empty(0, dtype=dtype)
    start = int(rng.integers(0, count - int(np.prod(shape)) + 1))
    view = flat[start : start + int(np.prod(shape))].view(shape)
    match rng.integers(0, 5):
        case 0 if shape:
            view = view.permute(*map(int, rng.permutation(len(shape))))
        case 1 if shape:
            view = view[::2]
        case 2:
            view = view.unsqueeze(0).expand(3, *view.shape)
        case 3 if view.is_floating_point():
            view = torch.nn.Parameter(view)
    return view


def random_state_dict(torch, rng):
    state = OrderedDict()
    for index in range(int(rng.integers(1, 12))):
        state[f"module.layer{index}.weight"] = random_tensor(torch, rng)
        if rng.random() < 0.3:
            state[f"module.tied{index}.weight"] = state[f"module.layer{index}.weight"]
    return state


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_random_state_dicts(torch, tmp_path, new, protocol, seed):
    state = random_state_dict(torch, np.random.default_rng(seed))
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    for mmap in (True, False):
        ours = load_torch_file(path, mmap=mmap)
        assert list(ours) == list(state)
        for name, tensor in state.items():
            same(torch, ours[name], tensor, name)


@FORMATS
def test_every_dtype(torch, tmp_path, new):
    state = {name: torch.ones(3).to(getattr(torch, name)) for name in DTYPES}
    state["float8_e8m0fnu"] = torch.ones(3).to(torch.float8_e8m0fnu)
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    ours = load_torch_file(tmp_path / "a.pth")
    for name, tensor in state.items():
        same(torch, ours[name], tensor, name)
        np.testing.assert_array_equal(ours[name].astype(np.complex64), np.ones(3))
    assert ours["bfloat16"].dtype == ml_dtypes.bfloat16


@FORMATS
def test_a_training_goes_there_and_back(torch, tmp_path, new):
    """A module with buffers, its optimiser, and the plain values around them."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimiser.step()
    saved = {"model": network.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3}
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=new)

    ours = load_torch_file(tmp_path / "a.pth")

    assert ours["epoch"] == 3
    groups = ours["optimizer"]["param_groups"]
    assert groups == saved["optimizer"]["param_groups"]
    for index, state in saved["optimizer"]["state"].items():
        same(torch, ours["optimizer"]["state"][index]["momentum_buffer"], state["momentum_buffer"])
    for name, tensor in saved["model"].items():
        same(torch, ours["model"][name], tensor, name)

    save_torch_file(tmp_path / "b.pth", ours["model"])
    fresh = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    fresh.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True), strict=True)
    for name, tensor in fresh.state_dict().items():
        same(torch, ours["model"][name], tensor, name)


@pytest.mark.parametrize("mmap", [True, False])
def test_pytorch_reads_what_is_written_here(torch, tmp_path, mmap):
    rng = np.random.default_rng(0)
    state = {name: torch.ones(2, 3).to(getattr(torch, name)) for name in DTYPES}
    state |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5), "": torch.ones(1)}
    state |= random_state_dict(torch, rng)
    torch.save(state, tmp_path / "a.pth")
    save_torch_file(tmp_path / "b.pth", load_torch_file(tmp_path / "a.pth"))

    back = torch.load(tmp_path / "b.pth", weights_only=True, mmap=mmap)

    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype and back[name].is_contiguous(), name
        assert raw(torch, back[name]) == raw(torch, tensor) and back[name].shape == tensor.shape


@FORMATS
def test_other_values(torch, tmp_path, new):
    imaginary = 1j * torch.tensor([1.0 + 1j, 2.0])
    with_attribute = torch.nn.Parameter(torch.ones(2))
    with_attribute.note = "kept by PyTorch, not here"
    value = {
        "size": torch.Size([1, 2]), "device": torch.device("cuda:0"), "dtype": torch.bfloat16,
        "set": {1, 2}, "complex": 1 + 2j, "counter": Counter("aab"), "bytes": b"\x00\xff",
        "default": defaultdict(dict, a={}), "conjugated": imaginary.conj(),
        "negated": imaginary.clone().conj().imag, "attribute": with_attribute,
        "numpy": (np.float32(2.5), np.array([[1, 2]], np.int16), np.bool_(True), np.str_("é")),
    }  # fmt: skip
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    ours = load_torch_file(tmp_path / "a.pth")
    for name in ("size", "set", "complex", "counter", "bytes", "default"):
        assert ours[name] == value[name]
    assert (ours["device"], ours["dtype"]) == ("cuda:0", ml_dtypes.bfloat16)
    for name in ("conjugated", "negated", "attribute"):
        same(torch, ours[name], value[name], name)
    for mine, theirs in zip(ours["numpy"], value["numpy"], strict=True):
        assert type(mine) is type(theirs) and mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@FORMATS
@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda torch: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear|whole module"),
        (lambda torch: torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (lambda torch: torch.empty(2, device="meta"), "torch._utils._rebuild_meta_tensor"),
    ],
)
def test_what_is_not_read_is_named(torch, tmp_path, new, make, asked):
    path = tmp_path / "a.pth"
    torch.save({"a": make(torch)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=asked):
        load_torch_file(path)


@FORMATS
def test_settings_beside_the_tensors_are_passed_over(torch, tmp_path, new):
    """Arguments and paths are frequent in checkpoints, and nothing of them is needed."""
    arguments = argparse.Namespace(lr=0.1, out=Path("runs"), classes=[1, 2])
    saved = {"state_dict": {"a": torch.ones(3)}, "args": arguments, "out": Path("x")}
    torch.save(saved, tmp_path / "file", _use_new_zipfile_serialization=new)
    found = load_torch_file(tmp_path / "file")
    assert (found["args"], found["out"]) == (None, None)
    np.testing.assert_array_equal(found["state_dict"]["a"], np.ones(3))


def test_without_checksums(torch, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(load_torch_file(tmp_path / "a.pth")["a"], np.ones(3))


def test_bfloat16_written_here_has_the_values(torch, tmp_path):
    save_torch_file(tmp_path / "a.pth", {"a": np.array([1.5, -2], ml_dtypes.bfloat16)})
    buffer = io.BytesIO((tmp_path / "a.pth").read_bytes())
    assert torch.load(buffer, weights_only=True)["a"].tolist() == [1.5, -2]
