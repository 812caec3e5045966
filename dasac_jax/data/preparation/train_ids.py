"""Labels as the data sets ship them -> 8-bit PNGs of train ids, once, before training.

Each file is written beside its place and renamed, so a file that exists is complete: a preparation
that was interrupted goes on where it stopped. The command for it, which also takes care of images
and of SYNTHIA, is scripts/prepare_data.py.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dasac_jax.data import labels
from dasac_jax.data.decoding import read_ids
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_LABEL, replacing


class CannotWriteError(UserError):
    """A file could not be written: the next one cannot be either, so nothing is gained by it."""


class Prepared(NamedTuple):
    """How many label files a preparation wrote, and how many were finished before."""

    written: int
    kept: int


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """`files.replacing`, which makes the folder if need be.

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


def write_train_ids(path: str | os.PathLike, train_ids: np.ndarray) -> None:
    """(h, w) uint8 train ids -> an 8-bit grey PNG at `path`, whose folder is made if need be.

    Raises CannotWriteError naming the file when it cannot be written.
    """
    with writing(Path(path)) as part:
        Image.fromarray(train_ids).save(part, format="PNG")


def is_current(made: Path, original: Path) -> bool:
    """Whether a file made of `original` is there, and no older."""
    return made.is_file() and made.stat().st_mtime_ns >= original.stat().st_mtime_ns


def _convert(
    source: Path, target: Path, pattern: str, to_train_ids: Callable[[np.ndarray], np.ndarray]
) -> Prepared:
    """Converts every `source`/`pattern` to the same relative name under `target`."""
    if not source.is_dir():
        raise UserError(f"folder {source} with the original labels is missing")
    paths = sorted(source.glob(pattern))
    if not paths:
        raise UserError(f"folder {source} holds no label files {pattern}")
    written = 0
    for path in paths:
        destination = target / path.relative_to(source)
        if not is_current(destination, path):
            write_train_ids(destination, to_train_ids(read_ids(path)))
            written += 1
    return Prepared(written, len(paths) - written)


def prepare_gta(root: str | os.PathLike) -> Prepared:
    """`game/labels/*.png` (palette index = label id) -> `game/labels_cs/*.png` (train ids).

    Finished files are kept unless their original is newer. Raises UserError naming the folder or
    file at fault.
    """
    game = Path(root) / "game"
    return _convert(game / "labels", game / "labels_cs", "*.png", labels.train_ids)


def prepare_cityscapes(root: str | os.PathLike) -> Prepared:
    """`cityscapes/gtFine/<split>/<city>/*_gtFine_labelIds.png` -> the same names below `gtFine2`.

    Finished files are kept unless their original is newer. Raises UserError naming the folder or
    file at fault.
    """
    cityscapes = Path(root) / "cityscapes"
    pattern = f"*/*/*{CITYSCAPES_LABEL}.png"
    return _convert(cityscapes / "gtFine", cityscapes / "gtFine2", pattern, labels.train_ids)
