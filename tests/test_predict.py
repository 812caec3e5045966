"""The command: images in, every kind of file out; nothing twice, nothing half, nothing mixed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from PIL import Image

import dasac_jax
from dasac_jax import models, predict
from dasac_jax.checkpoints import store
from dasac_jax.data.labels import CLASS_NAMES, CLASSES, label_ids, palette
from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.inference import prediction_files
from dasac_jax.inference.image_files import ImageFile
from dasac_jax.inference.prediction_files import predict_files
from dasac_jax.inference.predictor import Prediction

ROOT = Path(__file__).parents[1]
NAMES = ("aachen_000000_000019_leftImg8bit", "aachen_000001_000019_leftImg8bit")


class ReadsGreen(nn.Module):
    """Predicts class k where green is nearest to 10 k, the surer the more `weight`."""

    num_classes: int = 19
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        weight = self.param("weight", nn.initializers.ones, ())
        codes = normalise(jnp.arange(self.num_classes)[:, None] * jnp.full((1, 3), 10.0))[:, 1]
        return -weight * jnp.abs(x[..., 1:2] - codes)


@struct.dataclass
class State:
    params: Any
    step: Any
    teacher: Any


def save(folder, weight=10.0, teacher=2.0, **facts):
    manager = store.open_manager(folder)
    state = State(
        {"weight": np.float32(weight)},
        np.int32(1),
        {"params": {"weight": np.float32(teacher)}},
    )
    store.save(
        manager,
        state,
        metadata={"arch": "reads_green", "num_classes": 19, "stage": "adapt"} | facts,
    )
    store.finish(manager)
    return folder


@pytest.fixture(autouse=True)
def architecture(monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "reads_green", ReadsGreen)


@pytest.fixture
def trained(tmp_path):
    return save(tmp_path / "trained")


def picture(path, seed=0, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 180, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Five images of two sizes in two folders."""
    for i in range(5):
        city, size = ("aachen", (40, 32)) if i < 3 else ("bonn", (48, 36))
        picture(tmp_path / "in" / city / f"{city}_00000{i}_000019_leftImg8bit.png", i, size)
    return tmp_path / "in"


def call(*arguments):
    """The command's exit code."""
    try:
        predict.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image)


def tree(folder):
    """Every file's bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "images.jsonl"
    }


def refused(capsys, words, *arguments):
    capsys.readouterr()
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    for word in words:
        assert word in said


def test_every_kind_of_file(trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ("--overlay", "--confidence", "--probabilities", "--zip", "--cityscapes-ids")
    assert call(trained, "--images", folder, "--output", out, *flags) == 0
    assert "5 images predicted" in capsys.readouterr().out
    network = dasac_jax.load(trained)
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).with_suffix("")
        pixels = read(path)
        labels, confidence = network.predict(pixels)
        clear = pixels[..., 1] % 10 != 5  # of two classes, both are right
        np.testing.assert_array_equal(labels[clear], np.round(pixels[..., 1] / 10)[clear])
        np.testing.assert_array_equal(read(out / "labels" / f"{name}.png"), labels)
        server = str(name).replace("leftImg8bit", "labelIds.png")
        np.testing.assert_array_equal(read(out / "cityscapes_ids" / server), label_ids(labels))
        np.testing.assert_array_equal(
            read(out / "confidence" / f"{name}.png"), np.round(255 * confidence).astype(np.uint8)
        )
        overlay = read(out / "overlay" / f"{name}.png")
        mixed = pixels / 2 + palette()[labels] / 2
        assert np.abs(overlay[: len(pixels)] - mixed).max() <= 0.5
        assert len(overlay) > len(pixels) and (overlay[-1, -1] == 255).all()  # the legend
        with np.load(out / "probabilities" / f"{name}.npz") as stored:
            probabilities = stored["probabilities"]
            assert tuple(stored["classes"]) == CLASS_NAMES
        assert probabilities.dtype == np.float16
        assert probabilities.shape == (*pixels.shape[:2], 19)
        np.testing.assert_allclose(probabilities.max(-1), confidence, atol=1e-3)
    assert len(tree(out)) == 5 * 5 + 2
    with zipfile.ZipFile(out / "cityscapes_ids.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "aachen_000000_000019_labelIds.png", "aachen_000001_000019_labelIds.png",
            "aachen_000002_000019_labelIds.png", "bonn_000003_000019_labelIds.png",
            "bonn_000004_000019_labelIds.png",
        ]  # fmt: skip
        for name in archive.namelist():
            stored = out / "cityscapes_ids" / name.split("_")[0] / name
            assert archive.read(name) == stored.read_bytes()


def test_what_is_there_is_kept_and_the_rest_is_done(trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = (trained, "--images", folder, "--output", out, "--zip")
    assert call(*command) == 0
    whole = tree(out)
    kept, gone = out / "labels" / "aachen", out / "labels" / "bonn"
    for path in kept.iterdir():
        os.utime(path, (1, 1))
    for path in gone.iterdir():
        path.unlink()
    (gone / ".bonn_000003_000019_leftImg8bit.png.part").write_bytes(b"half")
    capsys.readouterr()
    assert call(*command) == 0
    assert "2 images predicted" in (said := capsys.readouterr().out) and "3 were there" in said
    assert tree(out) == whole
    assert {path.stat().st_mtime for path in kept.iterdir()} == {1}
    assert call(*command, "--confidence") == 0
    assert tree(out).keys() > whole.keys()
    assert {path.stat().st_mtime for path in kept.iterdir()} == {1}


def test_an_image_that_cannot_be_read_stops_and_mending_it_goes_on(
    trained, folder, tmp_path, capsys
):
    bad, out = folder / "bonn" / "bonn_000003_000019_leftImg8bit.png", tmp_path / "out"
    good = bad.read_bytes()
    command = (trained, "--images", folder, "--output", out)
    for content, word in ((good[:-100], "cannot read image"), (b"", "is empty")):
        bad.write_bytes(content)
        refused(capsys, [str(bad), word], *command)
        assert not list(out.rglob("*.part"))
    bad.write_bytes(good)
    assert call(*command) == 0
    assert len(list((out / "labels").rglob("*.png"))) == 5


def test_predictions_are_not_mixed(trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("--images", folder, "--output", out)
    assert call(trained, *command) == 0
    before = tree(out)
    other = save(tmp_path / "other", weight=11)
    for arguments, word in (
        ((other, *command), "weights"),
        ((trained, *command, "--teacher"), "weights"),
        ((trained, *command, "--flip"), "flip"),
        ((trained, *command, "--scales", "0.5,1"), "scales"),
        ((trained, *command, "--window", "32x32"), "window"),
    ):
        refused(capsys, ["holds other predictions", word], *arguments)
    assert tree(out) == before
    copy = save(tmp_path / "copy")  # the same weights at another place
    assert call(copy, *command) == 0
    (out / "prediction.json").write_text("[")
    refused(capsys, ["prediction.json cannot be read"], trained, *command)


def test_the_teacher(trained, folder, tmp_path, capsys):
    image = folder / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    for name, flags in {"student": (), "teacher": ("--teacher",)}.items():
        command = (trained, "--images", image, "--output", tmp_path / name, "--confidence")
        assert call(*command, *flags) == 0
    student, teacher = (
        read(tmp_path / name / "confidence" / image.name) for name in ("student", "teacher")
    )
    assert student.mean() > teacher.mean() + 20
    baseline = save(tmp_path / "baseline", stage="baseline")
    refused(capsys, ["no trained teacher"], baseline, "--images", image, "--output",
            tmp_path / "x", "--teacher")  # fmt: skip


def test_options_reach_the_network(trained, tmp_path):
    pixels = picture(tmp_path / "a.png", size=(70, 50))
    out = tmp_path / "out"
    assert call(trained, "--images", tmp_path / "a.png", "--output", out, "--window", "32x40",
                "--overlap", "0", "--batch", "2", "--flip", "--scales", "1,2",
                "--probabilities") == 0  # fmt: skip
    with np.load(out / "probabilities" / "a.npz") as stored:
        found = stored["probabilities"].astype(np.float32)
    bigger = Image.fromarray(pixels).resize((140, 100), Image.Resampling.BILINEAR)
    network = dasac_jax.load(trained)
    sharp, soft = network.predict(pixels)[1], network.predict(np.asarray(bigger))[1]
    corner = (sharp[0, 0] + soft[0, 0]) / 2
    assert found[0, 0].max() == pytest.approx(corner, abs=1e-3)
    recorded = json.loads((out / "prediction.json").read_text())
    assert recorded["scales"] == [1, 2] and recorded["window"] == [32, 40] and recorded["flip"]
    assert recorded["overlap"] == 0


def test_other_classes(tmp_path, folder, capsys):
    facts = {"num_classes": 2, "class_names": ["sea", "land"], "palette": [[0, 0, 200], [90, 0, 0]]}
    trained, out = save(tmp_path / "two", **facts), tmp_path / "out"
    assert call(trained, "--images", folder, "--output", out, "--overlay") == 0
    name = "aachen/aachen_000000_000019_leftImg8bit.png"
    pixels, labels = read(folder / name), read(out / "labels" / name)
    assert set(np.unique(labels)) == {0, 1}
    mixed = pixels / 2 + np.array(facts["palette"])[labels] / 2
    assert np.abs(read(out / "overlay" / name)[: len(pixels)] - mixed).max() <= 0.5
    refused(capsys, ["2 classes"], trained, "--images", folder, "--output", out, "--zip")
    with pytest.raises(UserError, match=r"19 classes of its own \(0, …\)"):
        names = [str(i) for i in range(19)]
        prediction_files.check_server_names([], ["cityscapes_ids"], names, zipped=False)


def test_names_that_the_server_does_not_know(trained, tmp_path, capsys):
    picture(tmp_path / "in" / "frame_1.png")
    command = (trained, "--images", tmp_path / "in", "--output", tmp_path / "out")
    assert call(*command, "--cityscapes-ids") == 0
    assert (tmp_path / "out" / "cityscapes_ids" / "frame_1.png").exists()
    refused(capsys, ["frame_1.png", "<city>"], *command, "--zip")


def test_two_images_for_one_file_of_the_server(trained, tmp_path, capsys):
    for name in ("foggy", "rainy"):
        picture(tmp_path / "in" / f"bonn_000000_000019_{name}.png")
    picture(tmp_path / "apart" / "x" / "bonn_000000_000019_a.png")
    picture(tmp_path / "apart" / "y" / "bonn_000000_000019_a.png")
    out = tmp_path / "out"
    refused(capsys, ["foggy.png and", "rainy.png", "bonn_000000_000019_labelIds.png"],
            trained, "--images", tmp_path / "in", "--output", out, "--cityscapes-ids")  # fmt: skip
    command = (trained, "--images", tmp_path / "apart", "--output", out)
    refused(capsys, ["x/bonn", "y/bonn"], *command, "--zip")
    assert call(*command, "--cityscapes-ids") == 0


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_video_of_the_overlays(trained, tmp_path, suffix):
    for i in range(3):
        picture(tmp_path / "in" / f"{i}.png", i)
    command = (trained, "--images", tmp_path / "in", "--output", tmp_path / "out")
    assert call(*command, "--video", tmp_path / f"v.{suffix}", "--fps", "5") == 0
    assert (tmp_path / f"v.{suffix}").stat().st_size > 1000
    assert len(list((tmp_path / "out" / "overlay").iterdir())) == 3


def test_mistakes_on_the_command_line(trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = (trained, "--images", folder, "--output", out)
    for flags, word in (
        (("--scales", "1,two"), "'1,two'"),
        (("--scales", "0"), "scales"),
        (("--window", "512"), "512x1024"),
        (("--window", "8x8"), "window"),
        (("--overlap", "1"), "overlap"),
        (("--batch", "0"), "batch"),
        (("--fps", "0"), "between 0.1 and 100"),
        (("--video", "v.avi"), ".gif or .mp4"),
        (("--colour",), "--colour"),
    ):
        refused(capsys, [word], *command, *flags)
    refused(capsys, ["--images"], trained, "--output", out)
    refused(capsys, ["no checkpoint"], folder, "--images", folder, "--output", out)
    refused(capsys, ["nowhere"], trained, "--images", tmp_path / "nowhere", "--output", out)
    (tmp_path / "none").mkdir()
    refused(capsys, ["no images in"], trained, "--images", tmp_path / "none", "--output", out)
    assert not out.exists()
    out.write_text("a file")
    refused(capsys, ["out"], *command)


def test_images_beside_their_output(trained, tmp_path):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert call(trained, "--images", tmp_path, "--output", tmp_path / "out", "--overlay") == 0
    assert [p.name for p in (tmp_path / "out" / "labels").rglob("*.png")] == ["a.png"]


def test_a_file_that_is_half_written_is_not_left(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def stopped(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    def predict(images):
        shape = images.shape[:3]
        return lambda: Prediction(np.zeros(shape, np.uint8), np.ones(shape, np.float32), None)

    picture(tmp_path / "a.png")
    monkeypatch.setattr(Path, "write_bytes", stopped)
    images, out = [ImageFile(tmp_path / "a.png", "a")], tmp_path / "out"
    out.mkdir()
    work = prediction_files.open_work(out, images, ["labels"])
    with pytest.raises(KeyboardInterrupt):
        list(predict_files(predict, work, out, ["labels"], CLASSES, batch=1))
    assert list((tmp_path / "out" / "labels").iterdir()) == []


@struct.dataclass
class FullState:
    params: Any
    batch_stats: Any
    step: Any


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A checkpoint of the demo's network and many small images."""
    folder = tmp_path_factory.mktemp("demo")
    model = models.create_model("deeplabv2_demo")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), dict(shapes))
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    manager = store.open_manager(folder / "trained")
    facts = {"arch": "deeplabv2_demo", "num_classes": 19}
    store.save(manager, FullState(**variables, step=np.int32(1)), metadata=facts)
    store.finish(manager)
    for i in range(150):
        picture(folder / "in" / f"{i}.png", i, (48, 40))
    return folder


def start(demo, output, devices):
    """The command as a user runs it, on simulated devices."""
    return subprocess.Popen(
        [sys.executable, "-m", "dasac_jax.predict", demo / "trained", "--images", demo / "in",
         "--output", output, "--confidence"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
    )  # fmt: skip


def test_neither_devices_nor_being_killed_change_a_file(demo, tmp_path):
    """One device in one go; two devices, killed as soon as there is something, and again."""
    with start(demo, tmp_path / "one", 1) as process:
        told = process.communicate()[1].splitlines()
        assert process.returncode == 0
    assert [line.split("  ")[0] for line in told] == [
        f"predict step {done}/150" for done in range(10, 151, 10)
    ]
    with start(demo, tmp_path / "two", 2) as process:
        while not list(tmp_path.glob("two/labels/*.png")):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    left = list(tmp_path.glob("two/*/*.png"))
    assert 0 < len(left) < 300
    assert {read(path).shape for path in left} == {(40, 48)}
    with start(demo, tmp_path / "two", 2) as process:
        said, complaint = process.communicate()
        assert process.returncode == 0 and all("predict step" in x for x in complaint.splitlines())
    done = int(re.match(r"(\d+) images predicted in .* s, (\d+) were there", said)[2])
    assert 0 <= done < 150
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert one == two and len(one) == 301
    network = dasac_jax.load(demo / "trained")
    for i in range(3):
        labels, _ = network.predict(read(demo / "in" / f"{i}.png"))
        np.testing.assert_array_equal(read(tmp_path / "one" / "labels" / f"{i}.png"), labels)
        assert len(np.unique(labels)) > 1
