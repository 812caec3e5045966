"""What `predict` refuses, names that it cannot give, and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from predictions import call, picture, read, refused, save

from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.inference import prediction_files
from dasac_jax.inference.image_files import ImageFile
from dasac_jax.inference.prediction_files import predict_files
from dasac_jax.inference.predictor import Prediction

ROOT = Path(__file__).parents[2]
NAMES = ("aachen_000000_000019_leftImg8bit", "aachen_000001_000019_leftImg8bit")


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
        (("--window", "512x512", "--overlap", "1"), "overlap"),
        (("--overlap", "0.5"), "--overlap is for --window"),
        (("--fps", "5"), "--fps is for --video"),
        (("--batch", "0"), "batch"),
        (("--fps", "0"), "between 0.1 and 100"),
        (("--fps", "few"), "'few' is no number"),
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
