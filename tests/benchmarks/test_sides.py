"""The benchmark: both sides compute the same, and its command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dasac_jax import interop
from dasac_jax.method import consistency
from dasac_jax.models import create_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """`benchmarks` lies beside the package, it is not installed; and it sets a precision."""
    monkeypatch.syspath_prepend(str(ROOT))
    precision = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", precision)


@pytest.fixture
def make_problem():
    from benchmarks.problem import Problem

    def make(task="step", network="deeplabv2_demo", height=64, width=96):
        return Problem(task, network, height, width, 2, 1, "float32", "cpu", 1)

    return make


@pytest.mark.torch
def test_both_sides_have_the_same_losses(torch, make_problem):
    from benchmarks import ours, torch_step
    from benchmarks.problem import adapt_batch

    task = make_problem()
    batch = adapt_batch(task)
    model = create_model(task.network, frozen_norm=True)
    # Unoptimised: compiling takes longer than running.
    step = jax.jit(
        ours.adaptation(model, task.network), compiler_options={"xla_backend_optimization_level": 0}
    )
    run = ours.begin(model, task.network)
    network = torch_step.network(task.network, 19)
    sides = [torch_step.Adaptation(network)]
    theirs_batch = torch_step.tensors(batch)
    for _ in range(3):
        run, metrics = step(run, batch)
        for side in sides:
            expected = side.step(theirs_batch)
            for name, value in expected.items():
                assert float(metrics[name]) == pytest.approx(float(value), rel=1e-4), name
    assert 0.1 < float(metrics["labelled"]) < 0.99  # so that the target loss says something
    theirs = {name: value.numpy() for name, value in network.state_dict().items()}
    mine = interop.state_dict_from_variables(task.network, jax.device_get(run.student))
    for name, value in mine.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(run.class_prior, sides[0].prior, rtol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("network", ["deeplabv2_vgg16_bn", "fcn_vgg16_bn"])
def test_networks_load_our_weights(torch, network):
    """Names and shapes; `test_both_sides` and the parity tests compare what is computed."""
    from benchmarks.torch_networks import NETWORKS
    from dasac_jax.interop.names import entries

    with torch.device("meta"):
        there = NETWORKS[network](19).state_dict()
    shapes = {n: tuple(v.shape) for n, v in there.items() if not n.endswith("num_batches_tracked")}
    assert shapes == entries(network, 19)


@pytest.mark.torch
@pytest.mark.parametrize("network", ["deeplabv2_demo", "dinov2_demo"])
def test_both_sides_predict_the_same(torch, transformers, make_problem, network):
    from benchmarks import ours, theirs

    task = make_problem("predict", network, height=72, width=104)
    labels = ours.make(task)()["labels"]
    expected = theirs.settle(theirs.make(task, tuned=False)())["labels"]
    assert len(np.unique(expected)) > 2
    assert (labels == expected).mean() > 0.999


@pytest.mark.parametrize("network", ["deeplabv2_demo", "dinov2_demo"])
def test_engines_predict_the_same(make_problem, tmp_path, monkeypatch, network):
    from benchmarks import engines, onnx_files, ours

    task = make_problem("predict", network, height=72, width=104)
    expected = ours.make(task)()["labels"]
    monkeypatch.setenv("CI", "true")  # importing OpenVINO else forks, which JAX warns of
    path = tmp_path / "ours.onnx"
    onnx_files.ours(task, path)
    for load in (engines.openvino, engines.onnxruntime):
        labels = engines.make(task, path, load)()["labels"]
        assert labels.shape == expected.shape == (1, 72, 104)
        assert (labels == expected).mean() > 0.999


@pytest.mark.torch
def test_tuned_step_has_the_losses_of_the_eager_one(torch, make_problem, monkeypatch):
    from benchmarks import torch_step
    from benchmarks.problem import adapt_batch

    monkeypatch.setattr(torch, "compile", lambda module: module)  # compiling takes a minute
    task = make_problem()
    batch = torch_step.tensors(adapt_batch(task))
    eager, tuned, rounded = (
        torch_step.Adaptation(torch_step.network(task.network, 19), **options).step(batch)
        for options in ({}, {"tuned": True}, {"tuned": True, "dtype": "bfloat16"})
    )
    for name, value in eager.items():
        assert float(tuned[name]) == pytest.approx(float(value), rel=1e-4), name
        assert float(rounded[name]) == pytest.approx(float(value), rel=0.1), name
    assert float(rounded["loss_source"]) != float(tuned["loss_source"])


def test_matrices_are_those_of_views(make_problem):
    from benchmarks.problem import adapt_batch

    batch, (height, width) = adapt_batch(make_problem()), (64, 96)
    there, back = batch["to_reference"], batch["from_reference"]
    scales, flips = back[:, 1, 1], np.sign(back[:, 0, 0])
    offsets = np.stack([back[:, 1, 2] * height / 2, flips * back[:, 0, 2] * width / 2], 1)
    expected = consistency.view_matrices(offsets, scales, flips, (height, width))
    np.testing.assert_allclose(there, expected[0], atol=1e-6)
    np.testing.assert_allclose(back, expected[1], atol=1e-6)


def test_operations_of_the_published_step(make_problem):
    from benchmarks import ours

    # 0.7 TFLOP for a ResNet-101 at 512×1024, of which its head has 23 GFLOP.
    forward, first = ours._products(make_problem("predict", "deeplabv2_resnet101", 512, 1024))
    assert forward == pytest.approx(747.31e9, rel=1e-4)
    assert first == 2 * 7 * 7 * 3 * 64 * 256 * 512


@pytest.mark.torch
def test_command(torch, tmp_path):
    path = tmp_path / "race.json"
    flags = ["--network", "deeplabv2_demo", "--task", "predict", "--size", "48", "64"]
    flags += ["--sides", "eager", "openvino"]
    ended = subprocess.run(
        [sys.executable, "benchmarks/run.py", *flags, "--repeats", "2", "--json", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    result = json.loads(path.read_text())
    ours, eager = result["sides"]["ours"], result["sides"]["eager"]
    assert len(ours["turns"]) == 2
    assert ours["ratio"] == {"seconds": 1, "cpu_seconds": 1}
    ratio = eager["median"]["seconds"] / ours["median"]["seconds"]
    assert eager["ratio"]["seconds"] == pytest.approx(ratio)
    assert ours["values"] == eager["values"]
    assert ours["same_labels"] == 1 and result["sides"]["openvino"]["same_labels"] > 0.999
    assert set(result["machine"]["versions"]) == {"jax", "torch", "openvino", "onnx"}
    assert 0 < eager["of_limit"] < 1.5
    assert "ours (JAX)" in ended.stdout and "labels as ours" in ended.stdout
    assert str(path) in ended.stdout


@pytest.mark.parametrize(
    ("flags", "missing", "error"),
    [
        ("", "torch", "--sides eager needs torch: pip install -e '.[torch]'"),
        (
            "--task predict --sides openvino onnxruntime", "onnxruntime",
            "--sides onnxruntime needs onnxruntime: pip install onnxruntime",
        ),
        (
            "--task predict --sides openvino", "openvino",
            "--sides openvino needs openvino: pip install openvino",
        ),
        ("--sides openvino", None, "--sides openvino needs --task predict"),
        (
            "--task predict --dtype bfloat16 --sides onnxruntime", None,
            "--sides onnxruntime needs --dtype float32",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_raced_gives_one_line(flags, missing, error, monkeypatch, capsys):
    from benchmarks import run

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(SystemExit) as ended:
        run.main(flags.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {error}"]


def test_without_xlas_compiler_for_gpus_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *_: None if name == 'jax_plugins' else find(name, *_)\n"
    )
    ended = subprocess.run(
        [sys.executable, "benchmarks/gpu_program.py"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: XLA's compiler for GPUs is missing: pip install -e '.[cuda]'"
    ]
