"""scripts/count_predictions.py: make importance weights from predictions on disk."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from dasac_jax.cli import Parser, code_of
from dasac_jax.data import finding, labels, sampling
from dasac_jax.data.decoding import read_ids
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.preparation.execute import in_threads
from dasac_jax.errors import UserError
from dasac_jax.files import PREDICTED_LABELS, PREDICTION_RECORD
from dasac_jax.runtime import logs


def count(
    folder: Path,
    paths: Sequence[Path],
    num_classes: int,
    *,
    jobs: int = 1,
    update: Callable[[int], None] | None = None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and pixels per class (N, C) int64 of label PNGs at `paths` below a folder.

    Names are the paths below the folder. Pixels of value 255 count for no class. update: called
    with the number of files done. Raises UserError naming the file that is unreadable or holds
    another value, and where no file holds a class.
    """
    palettes = Palettes()

    def count_file(path: Path) -> np.ndarray:
        counts = np.bincount(read_ids(path, palettes).ravel(), minlength=256)
        beyond = np.flatnonzero(counts[num_classes : labels.IGNORE])
        if beyond.size:
            raise UserError(
                f"label file {path} holds {num_classes + beyond[0]}, which is no train id of "
                f"{num_classes} classes (0..{num_classes - 1} or {labels.IGNORE})"
            )
        return counts[:num_classes]

    counts = np.stack(in_threads(count_file, paths, jobs, update))
    if not counts.any():
        raise UserError(
            f"none of the {len(paths)} label files in {folder} holds a pixel of a class, all are "
            f"{labels.IGNORE}: give predicted label maps of train ids"
        )
    return tuple(path.relative_to(folder).as_posix() for path in paths), counts


def class_names(folder: Path) -> tuple[str, ...]:
    """The classes in the file that `predict` writes beside its label maps, or Cityscapes' 19."""
    path = folder / PREDICTION_RECORD
    if not path.is_file():
        return tuple(entry.name for entry in labels.CLASSES)
    try:
        return tuple(map(str, json.loads(path.read_text(encoding="utf-8"))["classes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the classes in {path}: {error!r}") from error


def main(arguments: Sequence[str] | None = None, *, console: Console | None = None) -> int:
    """Do what the command line says; the exit code is 0, 2 for mistakes, 130 for Ctrl-C."""
    out = console or Console()
    return code_of(lambda: _run(_parser().parse_args(arguments), out), "nothing was written")


def _run(options: argparse.Namespace, console: Console) -> None:
    if not options.folder.is_dir():
        raise UserError(f"folder {options.folder} is missing")
    if options.output.exists():
        raise UserError(f"{options.output} is there already: give another file, or remove it")
    classes = class_names(options.folder)
    inner = options.folder / PREDICTED_LABELS
    folder = inner if inner.is_dir() else options.folder
    with logs.logging_to(None, primary=False, console=Console(stderr=True)):
        paths, jobs = finding.label_maps(folder), os.cpu_count() or 1
        with logs.progress("count", len(paths), log_every=100) as update:
            names, counts = count(folder, paths, len(classes), jobs=jobs, update=update)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {options.output}: {error.strerror}") from error
    sampling.save_weights(options.output, names, counts, classes)
    text = f"importance weights of {len(names)} images: {options.output}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="count_predictions.py",
        description="Make a run's importance weights of label maps that were predicted before.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER",
        help="what `python -m dasac_jax.predict` wrote, or a folder of train-id PNGs",
    )  # fmt: skip
    parser.add_argument("output", type=Path, metavar="FILE", help="RUN/weights.tsv")
    return parser
