"""Checkpoints go back into PyTorch's files under the authors' names, bit for bit."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from dasac_jax.errors import UserError
from dasac_jax.interop import (
    convert,
    export,
    load_torch_file,
    save_torch_file,
    state_dict_from_variables,
)
from dasac_jax.interop.contents import recognise
from dasac_jax.interop.names import entries

SNAPSHOTS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("snapshots.py"))))
DEMO = "deeplabv2_demo"


def assert_same_bits(ours, theirs):
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape), name
        assert np.array_equal(np.atleast_1d(array).view(np.uint8),
                              np.atleast_1d(theirs[name]).view(np.uint8)), name  # fmt: skip


@pytest.mark.parametrize("arch", SNAPSHOTS.NETWORKS)
def test_there_and_back(arch):
    """Names, order, shapes, types and bits of each network in full size."""
    theirs = SNAPSHOTS.state_dict(arch)
    state = convert.train_state(recognise(SNAPSHOTS.prefixed("module.backbone.", theirs)))
    ours = state_dict_from_variables(arch, state.student)
    counters = {name: x for name, x in theirs.items() if name.endswith("num_batches_tracked")}
    assert list(ours) == list(theirs)
    assert_same_bits({**ours, **counters}, theirs)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A network of full size, converted, and the file that it gives back."""
    folder = tmp_path_factory.mktemp("vgg")
    theirs = SNAPSHOTS.state_dict("deeplabv2_vgg16_bn")
    save_torch_file(folder / "there.pth", theirs)
    convert.convert(folder / "there.pth", folder / "checkpoint")
    export.to_torch(folder / "checkpoint", folder / "back.pth")
    return theirs, folder / "back.pth"


def test_there_and_back_through_files(vgg):
    theirs, path = vgg
    assert_same_bits(load_torch_file(path), theirs)


@pytest.mark.torch
def test_pytorch_loads_it_strictly(vgg, torch):
    """A network whose layers have the authors' names takes it with strict=True."""
    network = torch.nn.Module()
    for name, shape in SNAPSHOTS.shapes("deeplabv2_vgg16_bn").items():
        *path, leaf = name.split(".")
        module = network
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        dtype = torch.int64 if leaf == "num_batches_tracked" else torch.float32
        empty = torch.empty(shape, dtype=dtype)
        if leaf in ("weight", "bias"):
            module.register_parameter(leaf, torch.nn.Parameter(empty))
        else:
            module.register_buffer(leaf, empty)
    theirs, path = vgg
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    assert_same_bits({n: x.numpy() for n, x in network.state_dict().items()}, theirs)


@pytest.fixture
def demo():
    """State_dicts of the demo's network: two that differ, counters included."""

    def make(seed):
        rng = np.random.default_rng(seed)
        out = {n: rng.standard_normal(s, np.float32) for n, s in entries(DEMO, 19).items()}
        for name in [name for name in out if name.endswith("running_var")]:
            out[name] = np.abs(out[name])
        for name in [name for name in out if name.endswith("running_mean")]:
            counter = name.replace("running_mean", "num_batches_tracked")
            out[counter] = np.asarray(seed + 11, np.int64)
        return out

    return make(0), make(1)


@pytest.fixture
def checkpoint(demo, tmp_path):
    """A converted checkpoint with a teacher."""
    student, teacher = demo
    student["model.conv1.weight"].flat[:3] = (3.4e38, -0.0, 1e-45)
    model = SNAPSHOTS.prefixed("backbone.", student) | SNAPSHOTS.prefixed("slow_net.", teacher)
    model |= {"running_conf": np.ones(19, np.float32), "slow_init": np.ones(1, np.float32)}
    save_torch_file(tmp_path / "final.pth", model)
    convert.convert(tmp_path / "final.pth", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("teacher", [False, True])
def test_safetensors(teacher, checkpoint, demo, tmp_path):
    path = tmp_path / "out.safetensors"
    export.to_safetensors(checkpoint, path, teacher=teacher)
    found = load_file(path)
    theirs = demo[teacher]
    assert_same_bits({name: found[name] for name in theirs}, theirs)
    assert found.keys() == theirs.keys()
    with safe_open(path, "np") as file:
        network = "teacher" if teacher else "student"
        assert file.metadata() == {"arch": DEMO, "num_classes": "19", "network": network}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "final.pth", path.name]


@pytest.mark.parametrize("teacher", [False, True])
def test_torch_file(teacher, checkpoint, demo, tmp_path):
    export.to_torch(checkpoint, tmp_path / "out.pth", teacher=teacher)
    found, theirs = load_torch_file(tmp_path / "out.pth"), demo[teacher]
    assert_same_bits({name: found[name] for name in theirs}, theirs)


@pytest.mark.parametrize("write", [export.to_torch, export.to_safetensors])
class TestRefused:
    def test_what_is_there_already(self, write, checkpoint, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(UserError, match="out is there already"):
            write(checkpoint, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"

    def test_a_folder_that_is_not_there(self, write, checkpoint, tmp_path):
        with pytest.raises(UserError, match=r"cannot write .*nowhere/out"):
            write(checkpoint, tmp_path / "nowhere" / "out")

    def test_no_checkpoint(self, write, tmp_path):
        with pytest.raises(UserError, match="there is no checkpoint"):
            write(tmp_path / "none", tmp_path / "out")

    def test_a_teacher_that_was_not_trained(self, write, demo, tmp_path):
        save_torch_file(tmp_path / "weights.pth", demo[0])
        convert.convert(tmp_path / "weights.pth", tmp_path / "checkpoint")
        with pytest.raises(UserError, match="has no trained teacher"):
            write(tmp_path / "checkpoint", tmp_path / "out", teacher=True)
