"""Videos: image files as frames of an animated GIF or an MP4, one in memory at a time."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from dasac_jax.data.decoding import read_rgb
from dasac_jax.errors import UserError
from dasac_jax.files import replacing

GIF_WIDTH = 640
"""The greatest width in pixels: GIF compresses so little that larger files would be huge."""


def check_video(path: Path | str) -> None:
    """Raise UserError unless a video can be written of this name: .gif, or .mp4 with its extra."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise UserError(f"video {path}: a name ending in .gif or .mp4 is needed")
    if suffix == ".mp4":
        _encoder()


def write_video(path: Path | str, frames: Sequence[Path], *, fps: float = 10) -> None:
    """Write image files, all of one size, as a video; after an error no file is left.

    The suffix of `path` decides: .gif loops forever and is at most GIF_WIDTH pixels wide; .mp4 is
    H.264 and loses an odd last row or column. fps: frames per second. Raises UserError naming the
    first frame of another size, and where the video cannot be written.
    """
    check_video(path)
    path = Path(path)
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as incomplete:
            write(incomplete, _pictures(frames), fps)
    except OSError as error:
        raise UserError(f"cannot write video {path}: {error}") from error


def _pictures(frames: Sequence[Path]) -> Iterator[np.ndarray]:
    """The frames, (H, W, 3) uint8. Raises UserError for one that is not of the first one's size."""
    size = None
    for frame in frames:
        picture = read_rgb(frame)
        size = size or picture.shape
        if picture.shape != size:
            raise UserError(
                f"frame {frame} is {picture.shape[1]}×{picture.shape[0]} pixels, {frames[0]} "
                f"{size[1]}×{size[0]}: a video needs frames of one size"
            )
        yield picture


def _write_gif(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    # `Image.save` collects all frames, even of an iterator, and joins equal ones before it writes
    # the first. Pillow's older `getheader` and `getdata` give the parts of the file one by one.
    with open(path, "wb") as file:
        for number, picture in enumerate(pictures):
            frame = Image.fromarray(picture)
            height = max(1, round(frame.height * GIF_WIDTH / frame.width))
            if frame.width > GIF_WIDTH:
                frame = frame.resize((GIF_WIDTH, height), Image.Resampling.BOX)
            frame = frame.quantize(256)
            if number == 0:
                file.writelines(GifImagePlugin.getheader(frame.copy(), info={"loop": 0})[0])
            # GIF counts durations in hundredths of a second and needs at least one.
            hundredths = max(1, round(100 / fps))
            file.writelines(
                GifImagePlugin.getdata(frame, duration=10 * hundredths, include_color_table=True)
            )
        file.write(b";")


def _write_mp4(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    first = next(pictures)
    height, width = (max(2, side - side % 2) for side in first.shape[:2])
    command = [_encoder(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"]
    command += ["-f", "mp4", str(path)]
    with tempfile.TemporaryFile() as stderr:
        # imageio-ffmpeg's own writer would fork, which is not safe in a process with JAX's threads.
        with (
            contextlib.suppress(BrokenPipeError),  # ffmpeg has ended; its exit code says why
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=stderr) as process,
        ):
            for picture in itertools.chain([first], pictures):
                process.stdin.write(np.ascontiguousarray(picture[:height, :width]))
        if process.returncode:
            stderr.seek(0)
            message = stderr.read().decode(errors="replace").strip().replace("\n", "; ")
            raise OSError(f"ffmpeg ended with code {process.returncode}: {message}")


def _encoder() -> str:
    """The path of the ffmpeg in imageio-ffmpeg. Raises UserError where that is not installed."""
    try:
        return importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            "MP4 needs imageio-ffmpeg: pip install 'dasac-jax[video]', or ask for a .gif"
        ) from error
