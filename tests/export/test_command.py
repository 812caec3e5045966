"""The command: a checkpoint in, a file out that says what it is; mistakes leave nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import dasac_jax
from dasac_jax import models
from dasac_jax.data.labels import CLASS_NAMES
from dasac_jax.export import command


def call(*arguments):
    """The command's exit code."""
    try:
        command.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture
def refused(capsys, tmp_path):
    """refused(words, *arguments): the command ends with code 2, one line, and no new file."""

    def check(words, *arguments):
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert call(*arguments) == 2
        said = capsys.readouterr().err
        # A damaged step is warned of before it is known that there is no other.
        *warnings, error = said.splitlines()
        assert error.startswith("error: ") and all(x.startswith("warning: ") for x in warnings)
        for word in words:
            assert word in error
        assert sorted(tmp_path.rglob("*")) == before

    return check


def test_twenty_images_of_three_sizes(whole, tmp_path, capsys):
    """Of a trained network: the labels of `predict`, and nearly all of them in float16."""
    assert call(whole.folder, tmp_path / "exact.onnx") == 0
    assert "images of any size from 32 pixels a side" in capsys.readouterr().out
    assert call(whole.folder, tmp_path / "half.onnx", "--float16") == 0
    network = dasac_jax.load(whole.folder)
    exact, half = session(tmp_path / "exact.onnx"), session(tmp_path / "half.onnx")
    paths = sorted((whole.folder / "data").rglob("*_leftImg8bit.png"))
    same, same_in_half = [], []
    for size in ((96, 48), (75, 66), (128, 40)):
        for path in (paths * 2)[:7]:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
            wanted, _ = network.predict(pixels)
            same.append(exact.run(None, {"images": pixels[None]})[0][0] == wanted)
            same_in_half.append(half.run(None, {"images": pixels[None]})[0][0] == wanted)
    assert len(same) > 20
    assert np.mean([equal.mean() for equal in same]) >= 0.9999
    assert np.mean([equal.mean() for equal in same_in_half]) >= 0.995


def test_what_the_file_tells(demo_checkpoint, tmp_path, capsys):
    path = tmp_path / "new" / "folder" / "network.onnx"
    assert call(demo_checkpoint, path, "--output", "both", "--size", 40, 64, "--teacher") == 0
    said = capsys.readouterr().out
    for words in (
        "teacher of step 7 of deeplabv2_demo",
        "40×64",
        "labels, probabilities",
        "unknown",
    ):
        assert words in said
    found = session(path)
    told = found.get_modelmeta().custom_metadata_map
    assert json.loads(told["class_names"]) == list(CLASS_NAMES)
    assert json.loads(told["palette"])[0] == [128, 64, 128]
    assert "uint8, RGB" in told["input"] and "labels" in json.loads(told["outputs"])
    assert (told["arch"], told["step"], told["epoch"]) == ("deeplabv2_demo", "7", "3")
    assert told["network"] == "teacher" and told["licence"].startswith("unknown")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    labels, probabilities = found.run(None, {"images": pixels[None]})
    teacher = dasac_jax.load(demo_checkpoint, teacher=True)
    wanted, confidence = teacher.predict(pixels)
    assert (labels[0] == wanted).mean() >= 0.999
    np.testing.assert_allclose(probabilities[0].max(-1), confidence, atol=1e-5)


def test_classes_and_licence_of_the_checkpoint(draw, save, tmp_path):
    """What a checkpoint says itself goes before what is known of Cityscapes."""
    names, palette = [f"kind {i}" for i in range(19)], [[i, 0, 255 - i] for i in range(19)]
    variables = draw(models.create_model("deeplabv2_demo"))
    facts = {"class_names": names, "palette": palette, "licence": "CC BY 4.0"}
    checkpoint = save(tmp_path / "own", variables, variables, **facts)
    assert call(checkpoint, tmp_path / "own.stablehlo", "--size", 32, 32) == 0
    told = json.loads((tmp_path / "own.stablehlo.json").read_text(encoding="utf-8"))
    assert {key: told[key] for key in facts} == facts
    assert (tmp_path / "own.stablehlo").stat().st_size > 700_000


def test_mistakes_on_the_command_line(refused, demo_checkpoint, tmp_path):
    out = tmp_path / "out.onnx"
    refused(["out.pb", ".onnx or .stablehlo"], demo_checkpoint, tmp_path / "out.pb")
    refused(["out.stablehlo", "--size H W"], demo_checkpoint, tmp_path / "out.stablehlo")
    refused(["--size 31 64", "32 pixels"], demo_checkpoint, out, "--size", 31, 64)
    refused(["--size", "'wide'"], demo_checkpoint, out, "--size", "wide", 64)
    refused(["--output", "'scores'"], demo_checkpoint, out, "--output", "scores")
    refused(["OUT"], demo_checkpoint)
    refused(["no checkpoint", "nowhere"], tmp_path / "nowhere", out)
    out.write_text("mine")
    refused(["out.onnx is there already"], demo_checkpoint, out)
    refused(["cannot write", "out.onnx/x.onnx"], demo_checkpoint, out / "x.onnx")
    (tmp_path / "a.stablehlo.json").write_text("mine")
    refused(
        ["a.stablehlo.json is there"], demo_checkpoint, tmp_path / "a.stablehlo", "--size", 32, 32
    )


def test_the_module_is_the_command(tmp_path):
    command_line = [sys.executable, "-m", "dasac_jax.export", "nowhere", str(tmp_path / "x.onnx")]
    ended = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ") and "nowhere" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing(refused, demo_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(["onnx: pip install 'dasac-jax[export]'"], demo_checkpoint, tmp_path / "out.onnx")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    out = tmp_path / "out.stablehlo"
    refused(["flatbuffers: pip install"], demo_checkpoint, out, "--size", 32, 32)


def test_checkpoints_that_cannot_be_exported(refused, demo_checkpoint, draw, save, tmp_path):
    model = models.create_model("deeplabv2_demo")
    variables = draw(model)
    variables["params"]["conv1"]["kernel"][0, 0, 0, 0] = np.nan
    checkpoint = save(tmp_path / "nan", variables, draw(model, 1))
    out = tmp_path / "out.onnx"
    refused(["params/conv1/kernel", "not finite", "take an earlier"], checkpoint, out)
    shutil.copytree(demo_checkpoint, tmp_path / "damaged")
    for file in (tmp_path / "damaged").rglob("*"):
        if file.is_file() and file.stat().st_size > 10_000:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 255
            file.write_bytes(content)
    refused(["damaged"], tmp_path / "damaged", out)


def test_a_full_disk(refused, demo_checkpoint, tmp_path, small_files):
    small_files(500_000)
    try:
        refused(["cannot write", "out.onnx"], demo_checkpoint, tmp_path / "out.onnx")
        out = tmp_path / "out.stablehlo"
        refused(["cannot write", "out.stablehlo"], demo_checkpoint, out, "--size", 32, 32)
    finally:
        small_files(0)
