"""scripts/prepare_data.py: prepare the data sets from their unpacked archives, or check them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dasac_jax.cli import Parser, code_of, jobs
from dasac_jax.data.preparation import check, check_report, original_labels
from dasac_jax.data.preparation.execute import (
    COPIED,
    KEPT,
    LINKED,
    WRITTEN,
    Summary,
    carry_out,
    dry_run,
)
from dasac_jax.data.preparation.plan import PLANS, Plan
from dasac_jax.errors import EXIT_MISTAKE
from dasac_jax.runtime import lock, logs

_MOST_ERRORS = 20
_SOURCES = {
    "cityscapes": "the folder that leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip were "
    "unpacked in: it holds leftImg8bit and gtFine",
    "gta5": "the folder that the parts were unpacked in: it holds images and labels, or 01_images "
    "and so on",
    "synthia": "the folder that SYNTHIA_RAND_CITYSCAPES was unpacked in, RAND_CITYSCAPES or above: "
    "RGB and GT/LABELS",
}


class Command(NamedTuple):
    """A further command: its name, what it does, its flags, and what carries it out.

    add_arguments: called with the parser, and with type and default of --jobs. run: returns the
    exit code.
    """

    name: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser, Callable[[str], int], int], None]
    run: Callable[[argparse.Namespace, Console], int]


def main(
    arguments: Sequence[str] | None = None,
    *,
    console: Console | None = None,
    further: Sequence[Command] = (),
) -> int:
    """Do what the command line says, and return the exit code.

    It is 0, 2 for mistakes and faulty data, or 130 for Ctrl-C. Errors go to stderr, a line each.
    further: commands that need more of the package than this room may import.
    """
    out = console or _open_console()
    runs = {"check": _check} | {command.name: command.run for command in further}

    def prepare_or_check() -> int:
        options = _parse(arguments, further)
        # There is no log file, because a data root is not the folder of a run.
        with logs.logging_to(None, primary=False, console=Console(stderr=True)):
            return runs.get(options.command, _prepare)(options, out)

    return code_of(prepare_or_check, "the same command goes on where this one was")


def _parse(arguments: Sequence[str] | None, further: Sequence[Command]) -> argparse.Namespace:
    parser = Parser(
        prog="prepare_data.py",
        description="Prepare Cityscapes, GTA5, SYNTHIA, CamVid or data of your own (own) for "
        "training, or check what is prepared.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, source in _SOURCES.items():
        description = f"prepare {name} below the data root"
        command = commands.add_parser(name, help=description, description=description)
        command.add_argument("source", type=Path, metavar="SOURCE", help=source)
        _add_common(command)
        command.add_argument(
            "--copy", action="store_true", help="copy the images; by default they are linked to"
        )
        command.add_argument(
            "--dry-run", action="store_true", help="say what would be done and write nothing"
        )
    description = "decode everything below the data root and report what is there and what is wrong"
    _add_common(commands.add_parser("check", help=description, description=description))
    for extra in further:
        command = commands.add_parser(
            extra.name, help=extra.description, description=extra.description
        )
        extra.add_arguments(command, jobs, os.cpu_count() or 1)
    return parser.parse_args(arguments)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root",
        type=Path,
        default=Path("data"),
        metavar="FOLDER",
        help="the data root, data.root of the configuration (default: %(default)s)",
    )
    command.add_argument(
        "--jobs",
        type=jobs,
        default=os.cpu_count() or 1,
        metavar="N",
        help="how many files to work on at a time (default: one for each CPU, %(default)s here)",
    )


def _prepare(options: argparse.Namespace, console: Console) -> int:
    plan = PLANS[options.command](options.source)
    labelled = sum(original.label is not None for original in plan.originals)
    _print(
        console, f"{plan.name}: {len(plan.originals)} images, {labelled} labels in {options.source}"
    )
    for note in plan.notes:
        _print(console, f"note: {note}")
    original_labels.check([x.label for x in plan.originals if x.label], plan.kind)
    if options.dry_run:
        summary = dry_run(plan, options.root, copy=options.copy)
    else:
        with (
            lock.held(options.root, flag="--root"),
            logs.progress(plan.name, len(plan.originals)) as update,
        ):
            summary = carry_out(
                plan, options.root, copy=options.copy, jobs=options.jobs, update=update
            )
    _print_summary(plan, summary, options, console)
    return EXIT_MISTAKE if summary.errors else 0


def _print_summary(
    plan: Plan, summary: Summary, options: argparse.Namespace, console: Console
) -> None:
    """Print how many files were made, with an example of each kind, and errors to stderr."""
    first = plan.originals[0]
    labelled = next((o for o in plan.originals if o.label_place), None)
    rows = [("images", summary.images, first.image_place)]
    if labelled:
        rows.append(("labels", summary.labels, labelled.label_place))
    for what, counter, place in rows:
        counts = _counts(counter, options.dry_run)
        _print(console, f"{what}: {counts}, as in {options.root / place}")
    if options.dry_run:
        _print(console, "dry run: nothing was written")
    if summary.resized:
        height, width = plan.label_size
        _print(
            console,
            f"labels brought to {width}×{height}, as their images differ in size: "
            f"{len(summary.resized)}: {check.shortened(summary.resized, 100)}",
        )
    for error in summary.errors[:_MOST_ERRORS]:
        print(f"error: {error}", file=sys.stderr)
    if summary.errors:
        more = max(len(summary.errors) - _MOST_ERRORS, 0)
        print(
            f"error: {len(summary.errors)} of {len(plan.originals)} were left out"
            + (f", {more} of them not named above" if more else "")
            + ": mend these, and the same command does the rest",
            file=sys.stderr,
        )


def _counts(counter: dict[str, int], dry_run: bool) -> str:
    """Counts as in "3 linked, 2 kept"."""
    words = [
        f"{counter[what]} {'to be ' if dry_run and what != KEPT else ''}{what}"
        for what in (LINKED, COPIED, WRITTEN, KEPT)
        if counter.get(what)
    ]
    return ", ".join(words) or "none"


def _check(options: argparse.Namespace, console: Console) -> int:
    surveys = []
    for part in check.find_parts(options.root):
        names = len(part.images.keys() | part.labels.keys())
        with logs.progress(part.name, names) as update:
            surveys.append(check.survey(part, jobs=options.jobs, update=update))
    return 0 if check_report.report(surveys, console) else EXIT_MISTAKE


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _open_console() -> Console:
    """Standard output; 160 characters wide where it is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
