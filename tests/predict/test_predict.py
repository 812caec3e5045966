"""The command: images in, every kind of file out; nothing twice, nothing half, nothing mixed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predictions import call, picture, read, refused, save, tree

import dasac_jax
from dasac_jax.data.labels import CLASS_NAMES, label_ids, palette

ROOT = Path(__file__).parents[2]
NAMES = ("aachen_000000_000019_leftImg8bit", "aachen_000001_000019_leftImg8bit")


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
