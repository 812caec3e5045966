"""The check on a GPU, as far as machines without one can tell."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

WHOLE = {
    "modules": [
        "absl",
        "etils",
        "flax",
        "msgpack",
        "optax",
        "PIL",
        "rich",
        "typing_extensions",
        "yaml",
    ],
    "jax": "0.12.1",
    "jax_devices": ["gpu"],
    "torch": "2.13.0",
    "torch_gpu": True,
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """`benchmarks` lies beside the package, it is not installed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def check(tmp_path):
    import os

    from benchmarks.gpu_check import Check

    return Check(tmp_path, True, time.monotonic() + 60, {"gpu": None}, dict(os.environ))


@pytest.mark.parametrize(
    ("change", "gpu", "expected"),
    [
        ({}, True, []),
        ({}, False, ["no NVIDIA GPU (nvidia-smi names none)"]),
        ({"jax": "0.10.2"}, True, ["JAX 0.10.2, which is older than 0.11"]),
        (
            {"jax_devices": ["cpu"]},
            True,
            ["no GPU that JAX sees (its CUDA plugin is not installed)"],
        ),
        ({"torch_gpu": False}, True, ["no GPU that PyTorch 2.13.0 sees"]),
        (
            {"modules": WHOLE["modules"][2:]},
            True,
            ["no Python module absl, etils (bring wheels, see docs/gpu_check.md)"],
        ),
    ],
)
def test_what_is_missing_is_named(change, gpu, expected):
    from benchmarks import gpu_machine

    assert gpu_machine.missing(WHOLE | change, gpu) == expected


def test_without_jax_and_torch_both_are_named():
    from benchmarks import gpu_machine

    found = {"modules": WHOLE["modules"], "jax_error": "No module named 'jax'", "torch_error": "x"}
    lacks = gpu_machine.missing(found, True)
    assert lacks == ["no JAX (No module named 'jax')", "no PyTorch (x)"]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "error: this machine has no NVIDIA GPU (nvidia-smi names none)"),
        (["races"], "error: no part is called races; there are parity, announced, race-bfloat16"),
        (["--wheels", "nowhere"], "error: --wheels: nowhere is no folder"),
    ],
)
def test_what_cannot_begin_ends_with_one_line_and_writes_nothing(
    flags, error, tmp_path, monkeypatch, capsys
):
    from benchmarks import gpu_check, gpu_machine

    monkeypatch.setattr(gpu_machine.shutil, "which", lambda name: None)
    # Importing JAX and PyTorch takes seconds.
    monkeypatch.setattr(gpu_machine, "_PROBE", f"import json; print({json.dumps(WHOLE)!r})")
    output = tmp_path / "results"
    with pytest.raises(SystemExit) as ended:
        gpu_check.main([*flags, "--output", str(output)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(error)
    assert not output.exists()


def test_a_part_that_fails_or_runs_out_of_time_is_noted_and_the_others_go_on(check, capsys):
    from benchmarks import gpu_check

    def command(code):
        return lambda check, ends: {"printed": check.run(["-c", code], ends)}

    written = []

    def last(check, ends):
        written.append(json.loads((check.output / "gpu_check.json").read_text())["parts"])
        return {"passed": True}

    check.ends = time.monotonic() + 300  # more than the parts that end take on any machine
    groups = [
        (0.01, {"slow": command("import time; time.sleep(600)")}),
        (1, {"wrong": command("raise SystemExit('error: no memory')")}),
        (1, {"mistaken": lambda check, ends: {}["x"], "printing": command("print(3)")}),
        (1, {"unasked": command("print(4)")}),
        (1, {"last": last}),
    ]
    gpu_check.run_parts(check, ["slow", "wrong", "mistaken", "printing", "last"], groups)
    parts = json.loads((check.output / "gpu_check.json").read_text())["parts"]
    assert parts["slow"]["failed"] == "ran out of its time"
    assert parts["slow"]["seconds"] < 100  # one is its share, ten minutes is what it would take
    assert parts["wrong"]["failed"] == "ended with code 1: error: no memory"
    assert parts["mistaken"]["failed"] == "KeyError('x')"
    assert parts["printing"]["result"] == {"printed": "3\n"}
    assert parts["last"]["result"] == {"passed": True}
    assert "unasked" not in parts
    assert written == [{name: parts[name] for name in ("slow", "wrong", "mistaken", "printing")}]
    assert "error: no memory" in (check.output / "gpu_check.log").read_text()
    assert "slow: FAILED after" in capsys.readouterr().out


def test_results_of_another_machine_are_kept(tmp_path, monkeypatch, capsys):
    from benchmarks import gpu_check, gpu_machine

    results = tmp_path / "gpu_check.json"
    results.write_text('{"machine": {"gpu": "H100"}, "parts": {}}')
    monkeypatch.setattr(gpu_machine, "_PROBE", f"import json; print({json.dumps(WHOLE)!r})")
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(["--rehearse", "--output", str(tmp_path)])
    assert ended.value.code == 2
    error = f"error: --output: {results} has the results of another machine; name another folder\n"
    assert capsys.readouterr().err == error
    assert json.loads(results.read_text())["machine"] == {"gpu": "H100"}


def test_races_are_the_published_ones(check, monkeypatch):
    from benchmarks import gpu_check, run

    asked = {}

    def stand_in(self, command, ends, **environment):
        flags = run.parse([str(word) for word in command[1:]])
        task = run.problem_of(flags)
        size = task.task, task.height, task.width, task.source, task.groups
        asked[flags.json.stem] = (size, task.dtype, flags.sides, bool(flags.profile), environment)
        flags.json.write_text('{"sides": {}}')

    monkeypatch.setattr(gpu_check.Check, "run", stand_in)
    check.rehearsal = False
    names = ["race-bfloat16", "race-tf32", "predict", "no-triton"]
    gpu_check.run_parts(check, names, gpu_check.GROUPS)
    step, both = ("step", 512, 1024, 8, 2), ["eager", "tuned"]
    no_triton = {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"}
    assert asked == {
        "race-bfloat16": (step, "bfloat16", both, True, {}),
        "race-tf32": (step, "tf32", both, True, {}),
        "predict": (("predict", 1024, 2048, 8, 2), "bfloat16", ["eager"], False, {}),
        "no-triton": (step, "bfloat16", ["eager"], True, no_triton),
    }
    assert all("result" in check.parts[name] for name in names)


def test_one_side_of_the_parity():
    from benchmarks.gpu_parity import BOUNDS, STEPS, computed
    from benchmarks.problem import CLASSES, Problem

    precision = jax.config.jax_default_matmul_precision
    try:
        task = Problem("step", "deeplabv2_demo", 24, 32, 1, 1, "float32", "gpu", 1)
        found = computed("gpu", task)
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    assert found.keys() == BOUNDS.keys()
    assert found["logits"].shape == (1, 4, 5, CLASSES)
    assert found["loss_source"].shape == found["labelled"].shape == (STEPS,)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["update"].any()


def test_memory_is_compared_with_what_was_announced():
    from benchmarks import gpu_check

    sides = {"ours": {"peak_bytes": 20 * 2**30}, "eager": {"peak_bytes": 30 * 2**30}}
    parts = {
        "announced": {"result": {"bfloat16": 18.1, "tf32": 35.0}},
        "race-bfloat16": {"result": {"sides": sides}},
        "race-tf32": {"failed": "ran out of its time"},
    }
    assert gpu_check.memory(parts) == {
        "bfloat16": {"announced": 18.1, "measured": {"ours": 20.0, "eager": 30.0}},
        "tf32": {"announced": 35.0, "measured": {}},
    }


def test_differences_beyond_a_bound_and_nan_do_not_pass():
    from benchmarks.gpu_parity import BOUNDS, compared

    reference = {name: np.array([4.0, -2.0], np.float32) for name in BOUNDS}
    assert all(q["passed"] for q in compared(reference, reference).values())
    for name, bound in BOUNDS.items():
        # Relative to the largest value, to the norm, or not at all.
        scale = {"labelled": 1, "update": 20**0.5}.get(name, 4)
        for share, passed in ((0.9, True), (1.1, False), (np.nan, False)):
            values = reference[name].astype(np.float64) + np.array([0, share * bound * scale])
            found = compared(reference | {name: values}, reference)
            assert found[name]["passed"] is passed
            assert [n for n, q in found.items() if not q["passed"]] == [name] * (not passed)


def test_kernels_of_a_gpus_streams_are_summed(tmp_path):
    from benchmarks import trace_kernels

    def named(kind, pid, name, tid=None):
        event = {"ph": "M", "name": kind, "pid": pid, "args": {"name": name}}
        return event if tid is None else event | {"tid": tid}

    def ran(name, pid, tid, microseconds, **args):
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, "dur": microseconds, "args": args}

    events = [
        named("process_name", 1, "/device:GPU:0"),
        named("thread_name", 1, "Stream #7(Compute)", 5),
        named("thread_name", 1, "XLA Ops", 6),
        named("process_name", 2, "/host:CPU"),
        ran("gemm", 1, 5, 1500, hlo_op="dot.1"),
        ran("copy", 1, 5, 2000),
        ran("gemm", 1, 5, 1000),
        ran("dot.1", 1, 6, 9000, hlo_op="dot.1"),
        ran("launch", 2, 9, 9000),
    ]
    path = tmp_path / "step.trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    rows = [
        {"name": "gemm", "calls": 2, "milliseconds": 2.5},
        {"name": "copy", "calls": 1, "milliseconds": 2.0},
    ]
    assert trace_kernels.longest(path) == rows
    assert trace_kernels.longest(path, 1) == rows[:1]


def test_a_profile_of_this_machine_can_be_read(tmp_path):
    from benchmarks import ours, trace_kernels

    double = jax.jit(lambda x: jnp.tanh(x) @ x)
    x = jnp.ones((64, 64))
    path = tmp_path / "step.trace.json.gz"
    told = ours.profile(lambda: {"x": double(x)}, str(path))
    assert told == {"trace": str(path), "runs": ours.PROFILED}
    rows = trace_kernels.longest(path)
    assert rows
    assert all(row["calls"] % ours.PROFILED == 0 for row in rows)


def test_on_a_gpu_one_side_ends_before_the_next_begins(monkeypatch, tmp_path):
    from benchmarks import run
    from benchmarks.problem import Problem

    asked = []

    class Side:
        def __init__(self, name, task, folder):
            self.name, self.turns = name, []

        def ask(self, order):
            asked.append((self.name, order))
            one = {"seconds": 1.0, "cpu_seconds": 1.0}
            facts = {"operations": {"by_hand": 1.0}} if self.name == "ours" else {}
            return {"go": one, "facts": facts, "ceilings": {"product": 2.0, "copy": 1.0}}[order]

        def close(self):
            asked.append((self.name, "close"))

    monkeypatch.setattr(run, "Side", Side)
    monkeypatch.setattr(run.report, "machine", lambda *_: {})
    task = Problem("step", "deeplabv2_demo", 48, 96, 2, 1, "tf32", "gpu", 1)
    run.race(task, ["ours", "eager"], 2, tmp_path)
    orders = ["go"] * 4 + ["facts", "ceilings", "close"]
    assert asked == [(name, order) for name in ("ours", "eager") for order in orders]
