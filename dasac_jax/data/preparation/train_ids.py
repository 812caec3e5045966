"""Convert the data sets' label files to 8-bit PNGs of train ids, once, before training.

A file that exists is complete, because it gets its name only when it is finished; so a preparation
continues where it was interrupted. The command scripts/prepare_data.py also prepares images and
SYNTHIA.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from dasac_jax.data.decoding import DECODE_ERRORS
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.preparation import original_labels
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_LABEL, replacing

_ORIGINAL = "original"  # the key of the note on what a prepared label was made of


class CannotWriteError(UserError):
    """A file could not be written. The next ones could not be either, so the preparation stops."""


class Prepared(NamedTuple):
    """How many label files were written, and how many were kept from an earlier preparation."""

    written: int
    kept: int


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """`files.replacing`, after making the folder if need be.

    Raises CannotWriteError naming the file for every OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise CannotWriteError(
            f"cannot write {path}: {error.strerror or error}; mend this, and the same command goes "
            "on from here"
        ) from error


def write_train_ids(
    path: str | os.PathLike, train_ids: np.ndarray, original: Path | None = None
) -> None:
    """(h, w) uint8 train ids -> an 8-bit grey PNG at `path`, whose folder is made if need be.

    original: the file that they are of, which the PNG then notes, see `is_of`. Raises
    CannotWriteError naming the file when it cannot be written.
    """
    notes = PngImagePlugin.PngInfo()
    if original is not None:
        notes.add_text(_ORIGINAL, _mark(original))
    with writing(Path(path)) as unfinished:
        Image.fromarray(train_ids).save(unfinished, format="PNG", pnginfo=notes)


def is_of(made: Path, original: Path) -> bool | None:
    """Whether a prepared label notes that it was made of `original` as this is now.

    That is of a file of this path, size and time. None where it notes nothing, as those that were
    made by an earlier version, or cannot be read. Raises OSError where there is no original.
    """
    mark = _mark(original)
    try:
        with Image.open(made) as image:
            noted = image.info.get(_ORIGINAL)
    except DECODE_ERRORS:
        return None
    return None if noted is None else noted == mark


def _mark(original: Path) -> str:
    """What changes with a file's path, size and time, and names none of them to others."""
    status = original.stat()
    text = f"{original.absolute()}\n{status.st_size}\n{status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_current(made: Path, original: Path) -> bool:
    """Whether the file made from `original` exists and is no older than it."""
    return made.is_file() and made.stat().st_mtime_ns >= original.stat().st_mtime_ns


def _convert(source: Path, target: Path, pattern: str, kind: original_labels.Kind) -> Prepared:
    """Convert every file `source`/`pattern` to one of the same relative path below `target`."""
    if not source.is_dir():
        raise UserError(f"folder {source} with the original labels is missing")
    paths = sorted(source.glob(pattern))
    if not paths:
        raise UserError(f"folder {source} holds no label files {pattern}")
    original_labels.check(paths, kind)
    written, palettes = 0, Palettes()
    for path in paths:
        destination = target / path.relative_to(source)
        if not is_current(destination, path):
            write_train_ids(destination, original_labels.read(path, kind, palettes))
            written += 1
    return Prepared(written, len(paths) - written)


def prepare_gta(root: str | os.PathLike) -> Prepared:
    """`game/labels/*.png` (palette index = label id) -> `game/labels_cs/*.png` (train ids).

    Finished files are kept unless their original is newer. Raises UserError naming the folder or
    file at fault.
    """
    game = Path(root) / "game"
    return _convert(game / "labels", game / "labels_cs", "*.png", original_labels.GTA5)


def prepare_cityscapes(root: str | os.PathLike) -> Prepared:
    """`cityscapes/gtFine/<split>/<city>/*_gtFine_labelIds.png` -> the same names below `gtFine2`.

    Finished files are kept unless their original is newer. Raises UserError naming the folder or
    file at fault.
    """
    cityscapes = Path(root) / "cityscapes"
    pattern = f"*/*/*{CITYSCAPES_LABEL}.png"
    kind = original_labels.CITYSCAPES
    return _convert(cityscapes / "gtFine", cityscapes / "gtFine2", pattern, kind)
