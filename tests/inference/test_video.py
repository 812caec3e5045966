"""Videos hold every frame, in order, at the speed that was asked for."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import PIL
import pytest
from PIL import GifImagePlugin, Image

import dasac_jax
from dasac_jax.errors import UserError
from dasac_jax.inference.video import GIF_WIDTH, check_video, write_video

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def frames(folder, size=(31, 20), colours=COLOURS):
    paths = []
    for i, colour in enumerate(colours):
        paths.append(folder / f"{i}.png")
        Image.new("RGB", size, colour).save(paths[-1])
    return paths


def test_gif(tmp_path):
    write_video(tmp_path / "new" / "v.gif", frames(tmp_path), fps=4)
    with Image.open(tmp_path / "new" / "v.gif") as video:
        assert (video.n_frames, video.size, video.info["loop"]) == (3, (31, 20), 0)
        for i, colour in enumerate(COLOURS):
            video.seek(i)
            assert video.info["duration"] == 250
            np.testing.assert_allclose(np.asarray(video.convert("RGB")), [[colour] * 31] * 20, 0, 3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["v.gif"]


def test_gif_with_colours_of_its_own_in_each_frame(tmp_path):
    ramps = np.zeros((2, 20, 100, 3), np.uint8)
    ramps[0, ..., 0] = ramps[1, ..., 2] = np.arange(100) * 2
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, ramp in zip(paths, ramps, strict=True):
        Image.fromarray(ramp).save(path)
    write_video(tmp_path / "v.gif", paths)
    with Image.open(tmp_path / "v.gif") as video:
        for i, ramp in enumerate(ramps):
            video.seek(i)
            difference = np.asarray(video.convert("RGB")).astype(int) - ramp
            assert np.abs(difference).max() <= 4


def test_gif_is_made_smaller(tmp_path):
    write_video(tmp_path / "v.gif", frames(tmp_path, (2 * GIF_WIDTH, 100)))
    with Image.open(tmp_path / "v.gif") as video:
        assert video.size == (GIF_WIDTH, 50)


def test_pillow_still_gives_the_parts_of_a_gif():
    """Pillow calls these two functions legacy; inference/video.py is the only module with them."""
    message = f"Pillow {PIL.__version__} changed what inference/video.py relies on to write GIFs"
    frame = Image.new("P", (3, 2))
    try:
        header = b"".join(GifImagePlugin.getheader(frame.copy(), info={"loop": 0})[0])
        part = b"".join(GifImagePlugin.getdata(frame, duration=250, include_color_table=True))
    except (AttributeError, TypeError) as error:
        pytest.fail(f"{message}: {error}")
    assert header.startswith(b"GIF89a") and b"NETSCAPE2.0" in header, message
    assert part.startswith(b"!\xf9\x04"), message  # a graphic control extension: the duration
    assert int.from_bytes(part[4:6], "little") == 25, message


def test_no_other_module_writes_gifs_by_parts():
    package = Path(dasac_jax.__file__).parent
    users = [path.name for path in package.rglob("*.py") if "GifImagePlugin" in path.read_text()]
    assert users == ["video.py"]


def test_mp4(tmp_path):
    """Odd sizes lose their last row and column; the decoder gives the frames back."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    write_video(tmp_path / "v.mp4", frames(tmp_path, (65, 49)), fps=4)
    decoded = subprocess.run(
        [ffmpeg, "-i", tmp_path / "v.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert re.search(rb"h264.*yuv420p.*64x48.*4 fps", decoded.stderr)
    pictures = np.frombuffer(decoded.stdout, np.uint8).reshape(3, 48, 64, 3)
    for picture, colour in zip(pictures, COLOURS, strict=True):
        np.testing.assert_allclose(picture[4:-4, 4:-4].mean((0, 1)), colour, atol=10)
    assert not list(tmp_path.glob(".*"))


def test_frames_of_different_size(tmp_path):
    paths = frames(tmp_path)
    Image.new("RGB", (31, 22)).save(paths[2])
    for name in ("v.gif", "v.mp4"):
        with pytest.raises(UserError, match=r"2\.png is 31×22 pixels, .*0\.png 31×20"):
            write_video(tmp_path / name, paths)
        assert not list(tmp_path.glob("*v.*"))


def test_other_names(tmp_path):
    for name in ("v.avi", "v", "gif"):
        with pytest.raises(UserError, match=r"\.gif or \.mp4"):
            check_video(tmp_path / name)


def test_mp4_without_its_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'dasac-jax\[video\]'"):
        check_video("v.mp4")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write video"):
        write_video(tmp_path / "file" / "v.gif", frames(tmp_path))
