"""Snapshots become checkpoints that training goes on from, with every number in its place."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.interop import convert, save_torch_file, state_dict_from_variables
from dasac_jax.interop.names import entries
from dasac_jax.method import optim
from dasac_jax.method import state as states

SNAPSHOTS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("snapshots.py"))))
DEMO = "deeplabv2_demo"


@functools.cache
def empty(arch):
    """A training state of the network, shapes only."""
    model = models.create_model(arch)
    return jax.eval_shape(lambda: states.create(model, optim.create(1e-3), seed=0))


def parameters(arch, params):
    """{PyTorch name: array} of a pytree like the parameters."""
    return state_dict_from_variables(arch, {"params": params, "batch_stats": {}})


def momentum(arch, state):
    return parameters(arch, optax.tree_utils.tree_get(state.opt_state, "trace"))


def assert_same(ours, theirs):
    theirs = {n: x for n, x in theirs.items() if not n.endswith("num_batches_tracked")}
    ours = {n: x for n, x in ours.items() if not n.endswith("num_batches_tracked")}
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture
def demo():
    """A state_dict of the demo's network."""
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in entries(DEMO, 19).items()}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arch", "legacy"), [("deeplabv2_resnet101", False), ("deeplabv2_vgg16_bn", True)]
)
def test_a_final_snapshot_of_full_size(arch, legacy, torch, tmp_path):
    snapshot = SNAPSHOTS.final(arch)
    path = tmp_path / "final_e136.pth"
    as_saved = SNAPSHOTS.as_torch(torch, snapshot)
    torch.save(as_saved, path, _use_new_zipfile_serialization=not legacy)
    done = convert.convert(path, tmp_path / "out")
    path.unlink()
    state, facts = store.restore(tmp_path / "out", empty(arch))
    model = snapshot["model"]
    for prefix, variables in (("backbone.", state.student), ("slow_net.", state.teacher)):
        ours = SNAPSHOTS.prefixed(f"module.{prefix}", state_dict_from_variables(arch, variables))
        assert_same(ours, {n: x for n, x in model.items() if f"module.{prefix}" in n})
    assert_same(momentum(arch, state), SNAPSHOTS.optimiser(arch, 3)[1])
    np.testing.assert_array_equal(state.class_prior, model["module.running_conf"])
    assert state.step == 136 * convert.STEPS_PER_EPOCH
    expected = {"arch": arch, "num_classes": 19, "stage": "adapt", "epoch": 136}
    expected |= {"best_score": 0.538}
    assert facts.items() >= expected.items() and "drawn" not in facts
    assert facts["origin"]["file"] == "final_e136.pth"
    assert (done.identity.verdict, done.contents.kind) == ("wrong", "final")


class TestGoingOn:
    """One more step here is one more step in PyTorch."""

    def network(self, torch):
        """The demo's network as the authors define theirs; only the parameters matter."""
        nn = torch.nn

        class Bottleneck(nn.Module):
            def __init__(self, before, width, project):
                super().__init__()
                self.conv1 = nn.Conv2d(before, width, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
                self.conv2 = nn.Conv2d(width, width, 3, bias=False)
                self.bn2 = nn.BatchNorm2d(width)
                self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
                self.bn3 = nn.BatchNorm2d(4 * width)
                if project:
                    self.downsample = nn.Sequential(
                        nn.Conv2d(before, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
                    )

        class Head(nn.Module):
            def __init__(self, before):
                super().__init__()
                self.conv2d_list = nn.ModuleList(nn.Conv2d(before, 19, 3) for _ in range(4))

        class Body(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1 = nn.Conv2d(3, 16, 7, bias=False)
                self.bn1 = nn.BatchNorm2d(16)
                before = 16
                for i, (blocks, width) in enumerate(((1, 16), (1, 24), (2, 32), (1, 32)), 1):
                    stage = []
                    for k in range(blocks):
                        stage.append(Bottleneck(before, width, k == 0))
                        before = 4 * width
                    setattr(self, f"layer{i}", nn.Sequential(*stage))
                self.layer5 = Head(before)

        network = nn.Module()
        network.model = Body()
        return network

    def sgd(self, torch, network):
        groups = [
            {"params": [], "lr": 1e-2 * rate, "weight_decay": decay}
            for rate, decay in ((1, 5e-4), (2, 0.0), (10, 5e-4), (20, 0.0))
        ]
        new = set(network.model.layer5.modules())
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
                for is_bias, values in enumerate((module.weight, module.bias)):
                    if values is not None:
                        groups[2 * (module in new) + is_bias]["params"].append(values)
        return torch.optim.SGD(groups, lr=1e-2, momentum=0.9)

    def step(self, torch, network, optimiser, seed):
        generator = torch.Generator().manual_seed(seed)
        for values in network.parameters():
            values.grad = torch.randn(values.shape, generator=generator)
        optimiser.step()

    @pytest.mark.torch
    @pytest.mark.parametrize("steps", [0, 3])
    def test_a_step(self, steps, torch, tmp_path):
        torch.manual_seed(0)
        network = self.network(torch)
        sgd = self.sgd(torch, network)
        for seed in range(steps):
            self.step(torch, network, sgd, seed)
        before = {name: values.clone() for name, values in network.state_dict().items()}
        model = SNAPSHOTS.prefixed("module.backbone.", before)
        snapshot = {"model": model, "opt": sgd.state_dict(), "score": 0.4, "epoch": 40}
        torch.save(snapshot, tmp_path / "e040.pth")
        convert.convert(tmp_path / "e040.pth", tmp_path / "out")
        state, _ = store.restore(tmp_path / "out", empty(DEMO))
        assert_same(momentum(DEMO, state).keys() and momentum(DEMO, state), {
            name: sgd.state[values]["momentum_buffer"].numpy() if steps else np.zeros(values.shape)
            for name, values in network.named_parameters()
        })  # fmt: skip

        self.step(torch, network, sgd, 100)
        grads = {name: values.grad.numpy() for name, values in network.named_parameters()}
        grads = convert.variables_from_state_dict(DEMO, grads)["params"]
        updates, _ = optim.create(1e-2).update(grads, state.opt_state, state.params)
        ours = parameters(DEMO, optax.apply_updates(state.params, updates))
        for name, values in network.named_parameters():
            moved = np.abs(values.detach().numpy() - before[name].numpy()).max()
            difference = np.abs(ours[name] - values.detach().numpy()).max()
            assert difference <= 1e-6 * max(moved, 1), name


class TestWhatAFileLacks:
    def test_is_as_at_a_stage_start(self, demo, tmp_path):
        save_torch_file(tmp_path / "weights.pth", demo)
        convert.convert(tmp_path / "weights.pth", tmp_path / "out")
        state, facts = store.restore(tmp_path / "out", empty(DEMO))
        assert_same(state_dict_from_variables(DEMO, state.student), demo)
        assert_same(state_dict_from_variables(DEMO, state.teacher), demo)
        assert (state.class_prior == np.float32(1e-3)).all() and state.step == 0
        assert not any(x.any() for x in jax.tree.leaves(state.opt_state))
        assert facts["stage"] == "baseline" and "epoch" not in facts

    def test_heads_are_drawn_and_listed(self, demo, tmp_path):
        body = {name: array for name, array in demo.items() if "layer5" not in name}
        save_torch_file(tmp_path / "weights.pth", body)
        done = convert.convert(tmp_path / "weights.pth", tmp_path / "out", allow_missing=True)
        state, facts = store.restore(tmp_path / "out", empty(DEMO))
        student = state_dict_from_variables(DEMO, state.student)
        assert_same({name: student[name] for name in body}, body)
        assert all(student[name].std() > 0 for name in done.contents.missing)
        assert sorted(facts["drawn"]) == sorted(
            f"params/layer5/{i}/{leaf}" for i in range(4) for leaf in ("kernel", "bias")
        )


class TestOutput:
    @pytest.fixture
    def path(self, demo, tmp_path):
        save_torch_file(tmp_path / "weights.pth", demo)
        return tmp_path / "weights.pth"

    def test_is_written_beside_and_renamed(self, path, tmp_path):
        (tmp_path / "deep" / ".out.part" / "left").mkdir(parents=True)  # by one that was killed
        (tmp_path / "deep" / "out").mkdir()
        convert.convert(path, tmp_path / "deep" / "out")
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
        assert [p.name for p in (tmp_path / "deep" / "out").iterdir()] == ["0"]

    @pytest.mark.parametrize("make", [lambda p: p.mkdir() or (p / "x").touch(), Path.touch])
    def test_is_never_overwritten(self, make, path, tmp_path):
        make(tmp_path / "out")
        with pytest.raises(UserError, match=r"out is there already: give another folder"):
            convert.convert(path, tmp_path / "out")

    def test_nothing_is_left_of_a_file_that_does_not_fit(self, path, demo, tmp_path):
        demo.popitem()
        save_torch_file(path, demo)
        with pytest.raises(UserError, match=rf"^{path}: it does not fit {DEMO}: 1 is missing"):
            convert.convert(path, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]

    def test_a_folder_that_cannot_be_written(self, path):
        with pytest.raises(UserError, match="cannot"):
            convert.convert(path, path / "out")
