"""Writing files whole or not at all, JSON values, PNG bytes, and file names used by many modules.

The names are those of the files in a run's folder, and the endings of Cityscapes' file names.
All modules write files through `replacing`, so that no reader and no restarted run finds a
half-written file.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dasac_jax.errors import UserError

UNFINISHED = ".part"
"""How the names of unfinished files end; they begin with a dot."""

# What lies where in a run's folder, which --workdir names.
CONFIG_FILE = "config.json"  # the configuration that the folder belongs to, by its flat keys
LISTS_FILE = "lists.json"  # how many images the run was begun with, and which
START_LOG = "runs.jsonl"  # a line for each start of the run
LOG_FILE = "train.log"
METRICS_LOG = "metrics.jsonl"  # a line for each logged or validated step
TENSORBOARD = "tensorboard"
DATA = "data"  # of a run that brings its own, or whose data.root is not set
PICTURES = "pictures"  # made at each validation
CURVES = "curves"
WEIGHTS_FILE = "weights.tsv"  # predicted pixels by class of each target image
METRICS_FILE = "metrics.json"  # the final scores
REPORT_FILE = "report.md"  # the final scores as text
PICTURE_FILE = "report.png"  # predictions of the networks that are scored at the end
PAGE_FILE = "report.html"
# A run of several seeds has a folder for each of them, RUN/seed0 and so on.
SEED_FOLDER = "seed"
# What lies in a stage's folder, RUN/baseline or RUN/adapt: folders of checkpoints.
NEWEST = "checkpoints"
BEST = "best"

# What lies in a folder of predictions.
PREDICTION_RECORD = "prediction.json"  # what decides them: network, weights, classes and options
PREDICTED_LABELS, PREDICTED_CITYSCAPES_IDS = "labels", "cityscapes_ids"
PREDICTIONS = (
    PREDICTED_LABELS, PREDICTED_CITYSCAPES_IDS, "overlay", "confidence", "probabilities",
)  # fmt: skip
"""The kinds of files that can be predicted for an image, each in a folder of this name."""

CITYSCAPES_IMAGE = "_leftImg8bit"
CITYSCAPES_LABEL = "_gtFine_labelIds"
"""How the stems of Cityscapes' image and label files end."""


def cityscapes_label(image: str) -> str:
    """The name of the label file that belongs to a Cityscapes image, of whatever suffix."""
    return image.replace(CITYSCAPES_IMAGE, CITYSCAPES_LABEL)


def seed_folders(folder: Path | str) -> dict[int, Path]:
    """The folders of a run of several seeds by their seed, in its order; else none."""
    found = {}
    for path in Path(folder).glob(f"{SEED_FOLDER}*"):
        number = path.name.removeprefix(SEED_FOLDER)
        if number.isdecimal() and number == str(int(number)) and path.is_dir():
            found[int(number)] = path
    return dict(sorted(found.items()))


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A place beside `path` for a new file or folder, which gets the name `path` at the end.

    After an error nothing new is left, and what was at `path` is as it was. Raises OSError where
    the place cannot be written, or lies in no folder.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    _remove(unfinished)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            _remove(unfinished)


def write_file(path: Path | str, content: bytes | str) -> None:
    """Write a whole file through `replacing`, making its folder if need be.

    Raises UserError naming the file where that fails.
    """
    path, content = Path(path), content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def check_reachable(path: Path | str) -> None:
    """Raise PermissionError where nobody can say whether a path exists: a folder may be closed.

    Python's own tests for files and folders then say that there is none, or, by version, raise.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path)


def size_and_crc32(path: Path) -> list[int]:
    """The size of a file in bytes, and the CRC-32 of its content."""
    size = crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def flush(path: Path) -> None:
    """Have a file's content, or a folder's entries, on disk, so that a power cut loses neither."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_room(folder: Path, size: int, prefix: str, largest: int) -> None:
    """Raise OSError where a full disk, a quota or a limit leaves no room for `size` bytes.

    prefix: how the name of the folder begins in which they are claimed for a moment, as files of
    at most `largest` bytes. Where the system cannot claim room (macOS), nothing is checked.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as place:
        for number, start in enumerate(range(0, size, largest)):
            with open(f"{place}/{number}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, min(largest, size - start))


def plain(value: Any) -> Any:
    """What JSON can hold: numpy values become Python's own, and what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a picture (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
