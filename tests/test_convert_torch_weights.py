"""convert_torch_weights.py as a user runs it, and a run that starts from what it made."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from dasac_jax.checkpoints import store
from dasac_jax.interop import load_torch_file, save_torch_file, state_dict_from_variables
from dasac_jax.interop.command import main
from dasac_jax.interop.names import entries
from dasac_jax.training import from_config, initial_state
from dasac_jax.training.workdir import Run

ROOT = Path(__file__).parents[1]
SNAPSHOTS = SimpleNamespace(
    **runpy.run_path(str(ROOT / "tests" / "interop" / "snapshots.py")),
)
OTHERS = runpy.run_path(str(ROOT / "tests/interop/files/foreign_networks.py"))
DEMO = "deeplabv2_demo"


@pytest.fixture
def program():
    """program(argument, …): the ended process, which has no PyTorch to import."""

    def run(*arguments, code=None):
        blocked = "import sys; sys.modules['torch'] = None; import runpy; "
        start = f"sys.argv[0] = 'x'; runpy.run_path('{ROOT}/convert_torch_weights.py', "
        return subprocess.run(
            [sys.executable, "-c", code or f"{blocked}{start}run_name='__main__')", *arguments],
            cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def called():
    """called(argument, …): exit code and what stands on the terminal."""

    def run(*arguments):
        console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
        return main([str(argument) for argument in arguments], console), console.export_text()

    return run


def numbers(seed):
    """A state_dict of the demo's network that can be trained."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in entries(DEMO, 19).items():
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            out[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            out[name] = rng.normal(0, 0.03, shape).astype(np.float32)
    return out


def final(seed=0):
    """Student and teacher of the demo's network as a final snapshot's model."""
    return {
        **SNAPSHOTS.prefixed("module.backbone.", numbers(seed)),
        **SNAPSHOTS.prefixed("module.slow_net.", numbers(seed + 1)),
        "module.running_conf": np.linspace(0.01, 0.2, 19, dtype=np.float32),
        "module.slow_init": np.ones(1, np.float32),
    }


def test_there_and_back_without_pytorch(program, tmp_path):
    save_torch_file(tmp_path / "final.pth", final())
    ended = program(tmp_path / "final.pth", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert "MD5" in ended.stdout and f"checkpoint: {tmp_path}/out" in ended.stdout
    assert not ended.stderr
    ended = program("--to-torch", tmp_path / "out", tmp_path / "back.pth", "--teacher")
    assert ended.returncode == 0, ended.stderr
    theirs, back = numbers(1), load_torch_file(tmp_path / "back.pth")
    assert all(np.array_equal(back[name], theirs[name]) for name in theirs)


def test_mistakes_take_one_line_and_code_2(program, tmp_path):
    ended = program(tmp_path / "none.pth", tmp_path / "out")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: cannot read {tmp_path}/none.pth: No such file or directory\n"


class TestTable:
    def rows(self, text):
        """{(what, remark): (tensors, numbers)}"""
        cells = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in text.splitlines() if "│" in line]
        return {(what, remark): (a, b) for what, a, b, remark in cells}

    def test_accounts_for_every_tensor(self, called, tmp_path):
        save_torch_file(tmp_path / "final.pth", final())
        code, text = called(tmp_path / "final.pth", tmp_path / "out")
        assert code == 0 and f"{DEMO}, final, 19 classes" in text
        rows = self.rows(text)
        shapes = entries(DEMO, 19)
        stats = [n for n in shapes if "running" in n]
        weights = sum(int(np.prod(shapes[n])) for n in shapes if n not in stats)
        assert rows["student", "weights"] == (f"{len(shapes) - len(stats)}", f"{weights:,}")
        assert rows["teacher", "weights"] == rows["student", "weights"]
        assert rows["class prior", "running_conf"] == ("1", "19")
        values = final().values()
        assert rows["all", ""] == (f"{len(values)}", f"{sum(x.size for x in values):,}")

    def test_lists_what_is_dropped_and_drawn(self, called, tmp_path):
        body = {n.removeprefix("model."): x for n, x in numbers(0).items() if "layer5" not in n}
        body |= {"fc.weight": np.zeros((9, 4), np.float32), "fc.bias": np.zeros(9, np.float32)}
        save_torch_file(tmp_path / "imagenet.pth", body)
        code, text = called(tmp_path / "imagenet.pth", tmp_path / "out")
        rows = self.rows(text)
        assert code == 0 and f"{DEMO}, imagenet, 19 classes" in text
        assert rows["dropped", "fc.weight, fc.bias"] == ("2", "45")
        assert any(what == "new layers" and "drawn" in remark for what, remark in rows)

    def test_tells_how_a_network_of_others_was_changed(self, called, tmp_path):
        theirs = OTHERS["state_dict"](branches=2, early_head=True)
        save_torch_file(tmp_path / "others.pth", theirs)
        code, text = called(tmp_path / "others.pth", tmp_path / "out")
        assert code == 0 and f"{DEMO}, weights, 19 classes" in text
        assert "note: branches 2 and 3 of the head were never trained" in text
        assert "note: its inputs are BGR levels minus Caffe's mean" in text
        notes = store.facts(tmp_path / "out")["origin"]["notes"]
        assert len(notes) == 2 and "folded into the first convolution" in notes[1]
        names = {name for name in theirs if name.startswith("layer5.")}
        count = sum(theirs[name].size for name in names)
        (dropped,) = (cells for (what, _), cells in self.rows(text).items() if what == "dropped")
        assert dropped == (f"{len(names)}", f"{count:,}")

    def test_tells_a_known_name_with_a_wrong_sum(self, called, tmp_path):
        path = tmp_path / "resnet101_gta" / "final_e136.pth"
        path.parent.mkdir()
        save_torch_file(path, final())
        code, text = called(path, tmp_path / "out")
        assert code == 0
        assert "MD5 59c166645f3b36bd0482c4ff25b5a32f: NOT that file" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN", "OUT", "--teacher"], "--teacher is for --to-torch and --to-safetensors"),
        (["IN", "OUT", "--to-torch", "--arch", "x"], "--arch is for making a checkpoint"),
        (["IN", "OUT", "--to-safetensors", "--allow-missing"], "--allow-missing is for making"),
        (["IN", "OUT", "--arch", "resnet18"], "--arch resnet18: choose one of"),
        (["IN", "OUT", "--arch", "fcn_vgg16_bn"], "does not fit fcn_vgg16_bn: 96 are missing"),
        (["IN", "IN"], "is there already: give another folder"),
    ],
)
def test_mistakes(arguments, message, called, tmp_path, capsys):
    save_torch_file(tmp_path / "IN", final())
    places = {name: tmp_path / name for name in ("IN", "OUT")}
    code, _ = called(*(places.get(argument, argument) for argument in arguments))
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.startswith("error: ")
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["IN"]


@pytest.mark.torch
class TestTraining:
    """Snapshots of the demo's network after 8 epochs, two steps each with the tiny demo."""

    @pytest.fixture
    def convert(self, torch, called, tmp_path):
        def make(model):
            shapes = entries(DEMO, 19)
            names = [n for n in shapes if "running" not in n]
            groups = [[], [], [], []]
            for name in names:
                groups[2 * ("layer5" in name) + name.endswith("bias")].append(name)
            order = [name for group in groups for name in group]
            state = {
                i: {"momentum_buffer": torch.full(shapes[name], 1e-4)}
                for i, name in enumerate(order)
            }
            common = {"lr": 1e-3, "momentum": 0.9, "dampening": 0, "weight_decay": 0}
            opt = {
                "state": state,
                "param_groups": [
                    common | {"nesterov": False, "params": [order.index(n) for n in group]}
                    for group in groups
                ],
            }
            snapshot = {"model": SNAPSHOTS.as_torch(torch, model), "opt": opt}
            torch.save({**snapshot, "score": 0.25, "epoch": 8}, tmp_path / "e008.pth")
            assert called(tmp_path / "e008.pth", tmp_path / "init")[0] == 0
            return tmp_path / "init"

        return make

    def test_an_adaptation_goes_on(self, convert, command, tiny, whole, tmp_path):
        init = convert(final())
        run = tmp_path / "run"
        flags = tiny(run, stages="adapt", init=init, select="last")
        ended = command(*flags)
        assert ended.code == 0, ended.err
        arrays, facts = store.read(run / "adapt" / "checkpoints")
        assert (int(arrays["step"]), facts["epoch"], facts["first_epoch"]) == (18, 9, 0)
        # Two steps on: the teacher followed once, and the class prior and weights moved a little.
        stem = ("conv1", "kernel")
        kernels = {
            which: variables["params"][stem[0]][stem[1]].transpose(3, 2, 0, 1)
            for which, variables in (("student", arrays), ("teacher", arrays["teacher"]))
        }
        name = "module.{}.model.conv1.weight"
        student, teacher = (final()[name.format(n)] for n in ("backbone", "slow_net"))
        assert 0 < np.abs(kernels["student"] - student).max() < 0.01
        np.testing.assert_allclose(kernels["teacher"], (student + teacher) / 2, atol=1e-6)
        prior = final()["module.running_conf"]
        assert 0 < np.abs(arrays["class_prior"] - prior).max() < 0.02

    def test_the_adaptation_follows_a_baseline(self, convert, tiny_config, tmp_path):
        model = {name: x for name, x in final().items() if "backbone" in name}
        config = tiny_config(init=str(convert(model)), stages="weights,adapt")
        fresh = partial(from_config.create_state, config, "adapt")
        state, facts = initial_state.of_adapt(Run(config, tmp_path / "run"), fresh)
        assert facts == {"first_epoch": 8, "best_score": 0.25}
        ours = state_dict_from_variables(DEMO, state.student)
        for name, array in numbers(0).items():
            np.testing.assert_array_equal(ours[name], array, err_msg=name)
        trace = optax.tree_utils.tree_get(state.opt_state, "trace")
        assert {float(x) for leaf in jax.tree.leaves(trace) for x in leaf.flat} == {
            np.float32(1e-4)
        }


@pytest.mark.torch
def test_memory(torch, program, tmp_path):
    """A snapshot converts with at most 1.3 times its size resident, the program itself aside."""
    path = tmp_path / "final.pth"
    snapshot = SNAPSHOTS.final("deeplabv2_vgg16_bn")
    torch.save(SNAPSHOTS.as_torch(torch, snapshot), path)
    del snapshot
    code = """
import sys
import jax
from dasac_jax.interop import convert
def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
convert.convert(sys.argv[1], sys.argv[2])
print(before, peak())
"""
    ended = program(path, tmp_path / "out", code=code)
    assert ended.returncode == 0, ended.stderr
    before, after = (int(number) << 10 for number in ended.stdout.split())
    assert after - before < 1.3 * path.stat().st_size
