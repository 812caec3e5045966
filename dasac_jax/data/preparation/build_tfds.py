"""scripts/build_tfds.py: store a prepared set as ArrayRecord files."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dasac_jax.cli import Parser, code_of, jobs
from dasac_jax.data import label_survey, labels, layout
from dasac_jax.data.pairs import PREPARED, PairSource
from dasac_jax.data.tfds import sets
from dasac_jax.data.tfds.records import first_line, load_tfds, quiet
from dasac_jax.errors import UserError
from dasac_jax.runtime import lock, logs


def main(arguments: Sequence[str] | None = None, *, console: Console | None = None) -> int:
    """Do what the command line says, and return the exit code.

    It is 0, 2 for mistakes and faulty data, or 130 for Ctrl-C. Errors go to stderr, a line each.
    """
    out = console or Console()

    def build() -> None:
        options = _parse(arguments)
        with logs.logging_to(None, primary=False, console=Console(stderr=True)):
            _build(options, out)

    return code_of(build, "nothing was kept of the set that was being built")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="build_tfds.py",
        description="Store a prepared set as ArrayRecord files, for config.data.tfds. "
        "TensorFlow is not needed.",
    )
    parser.add_argument("set", choices=sorted(sets.SPLITS), help="the set to store")
    parser.add_argument(
        "--root", type=Path, default=Path("data"), metavar="FOLDER",
        help="the data root that scripts/prepare_data.py filled (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("data/tfds"), metavar="FOLDER",
        help="the folder of all stored sets, config.data.tfds (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--splits", type=lambda text: tuple(text.split(",")), default=None, metavar="A,B",
        help="of cityscapes: some of train,val,test (default: train,val)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_size, metavar="HEIGHTxWIDTH",
        help="bring images and labels to this size, as training does: data.target_size or "
        "data.source_size (default: store the files as they are)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=jobs, default=os.cpu_count() or 1, metavar="N",
        help="how many files to work on at a time (default: %(default)s, one for each CPU)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _size(text: str) -> sets.Size:
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no height and width, as in 512x1024")
    height, width = text.split("x")
    return int(height), int(width)


def _build(options: argparse.Namespace, console: Console) -> None:
    known = sets.SPLITS[options.set]
    splits = options.splits or known[:2]  # training does not use Cityscapes' third, test
    for split in splits:
        if split not in known:
            raise UserError(f"--splits: {options.set} has no {split!r}, only {', '.join(known)}")
    folder = sets.folder(options.output, options.set, options.size)
    if folder.exists():
        raise UserError(f"{folder} is there already: remove it to build the set anew")
    counts = {}
    for split in splits:
        pairs = layout.find_pairs(options.root, options.set, split)
        _check_labels(options.root, f"{options.set} {split}", pairs)
        counts[split] = len(pairs)
    tfds = load_tfds()
    from dasac_jax.data.preparation.tfds_builders import BUILDERS, storage

    with (
        lock.held(options.output, flag="--output"),
        logs.progress(options.set, sum(counts.values()), log_every=100) as update,
        tempfile.TemporaryDirectory() as downloads,  # TFDS makes it, and leaves it empty
        _quiet(tfds),
    ):
        _remove_unfinished(folder)
        try:
            builder = BUILDERS[options.set](
                splits=splits,
                jobs=options.jobs,
                update=update,
                data_dir=options.output,
                config=storage(options.size),
                file_format="array_record",
            )
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=options.root),
            )
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot write {folder}: {first_line(error)}") from error
    found = ", ".join(f"{count} of {split}" for split, count in counts.items())
    gigabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    text = f"{options.set}: {found}, {gigabytes:.2f} GB: {folder}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _check_labels(root: Path, name: str, pairs: Sequence[sets.Pair]) -> None:
    """Raise UserError where a sample of the labels cannot be prepared ones of this set."""
    if all(label is None for _, label in pairs):
        return
    source = PairSource(str(root), tuple(pairs), (1, 1), name)
    meaning = label_survey.Meaning((), labels.CLASS_NAMES, own=False)
    found = label_survey.survey(source)
    label_survey.check(found, name, meaning)
    if label_survey.ignored_share(found.counts, meaning) > label_survey.MOSTLY_IGNORED:
        raise UserError(
            f"{name}: most label pixels are ignored, "
            f"{label_survey.shares(found.counts)}: are they {PREPARED} from the published files?"
        )


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed build left, which TFDS would have renamed to `folder` at its end."""
    for path in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(path)


@contextlib.contextmanager
def _quiet(tfds: Any) -> Iterator[None]:
    """Hide the messages and progress bars of TFDS, which are about downloads."""
    tfds.disable_progress_bar()
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
