"""scripts/prepare_data.py own: from two folders of anybody's images to a recipe."""

from __future__ import annotations

import argparse
import glob
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dasac_jax.data.label_values import text
from dasac_jax.data.preparation import camvid, prepare_data
from dasac_jax.data.preparation.check import shortened
from dasac_jax.data.preparation.prepare_data import Command
from dasac_jax.errors import UserError
from dasac_jax.own_data import class_files, domains, outputs, proposal, sizes, value_table
from dasac_jax.own_data.class_files import Table
from dasac_jax.own_data.domains import Domain
from dasac_jax.own_data.proposal import Classes, Key
from dasac_jax.own_data.survey import Labels
from dasac_jax.runtime import lock, logs

DESCRIPTION = (
    "Looks at a labelled source and an unlabelled target, pairs images with labels, shows what "
    "the labels hold, and writes lists, a recipe and a picture. Nothing is converted."
)
_PLACES = "folders, files, or patterns in quotes"


class Domains(NamedTuple):
    """Both domains with what their labels hold; None for labels that were not given."""

    source: Domain
    target: Domain
    source_labels: Labels
    target_labels: Labels | None


def add_arguments(command: argparse.ArgumentParser, jobs_type, jobs: int) -> None:
    """The flags of `own`."""
    add = command.add_argument
    for name, needed, what in (
        ("source-images", True, "images with labels"),
        ("source-labels", True, "their label images: numbers or colours, PNG or TIFF"),
        ("target-images", True, "images without labels"),
        ("target-labels", False, "labels of some target images, for scores at the end"),
    ):
        help_ = f"{what}; {_PLACES}"
        add(f"--{name}", nargs="+", required=needed, metavar="PLACE", help=help_)
    add("--output", type=Path, required=True, metavar="FOLDER", help="for lists, mine.py, look.png")
    tables = ", ".join(class_files.known())
    file = "a text, CSV or JSON file of names with ids, colours or both"
    add("--classes", metavar="TABLE", help=f"{file}, or one of: {tables}")
    add("--target-classes", metavar="TABLE", help="of the target's labels, if it is another")
    add(
        "--ignore",
        nargs="+",
        default=(),
        metavar="VALUE",
        help="label values, colours (#rrggbb) or class names that are neither trained nor scored",
    )
    add("--force", action="store_true", help="overwrite what an earlier preparation wrote")
    add("--dry-run", action="store_true", help="show everything and write nothing")
    add("--jobs", type=jobs_type, default=jobs, metavar="N", help="files to read at a time")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what the flags say. Returns the exit code; raises UserError."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    _check(options)
    if options.dry_run:
        planned, _ = _propose(options, None, console, say)
        named = ", ".join(map(str, [*planned.texts, planned.picture]))
        say(f"dry run: nothing was written; to be written: {named}")
        return 0
    was_there = options.output.exists()
    try:
        with lock.held(options.output, flag="--output"):
            _prepare(options, console, say)
    finally:
        if not was_there:
            with suppress(OSError):  # something was written
                options.output.rmdir()
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together, and where no folder can be."""
    if options.target_classes and not options.target_labels:
        raise UserError("--target-classes is for --target-labels: give these too, or leave it out")
    there = next(path for path in (options.output, *options.output.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--output {options.output}: {there} is no folder: choose another")


def _prepare(options, console: Console, say) -> None:
    """Write everything. After a mistake, what was read of the labels is not kept."""
    kept = options.output / outputs.KEPT_FILE
    goes_on = kept.exists()
    try:
        planned, labelled = _propose(options, kept, console, say)
    except UserError:
        if not goes_on:
            kept.unlink(missing_ok=True)
        raise
    outputs.write(planned, options.output, force=options.force)
    say(f"written: {', '.join(map(str, planned.texts))}")
    say(f"what was read of the labels is kept in {kept}")
    _finish(options, say, labelled)


def _propose(options, kept: Path | None, console: Console, say) -> tuple[outputs.Planned, int]:
    """Look at everything, show it, and plan the files; and how many target images have labels."""
    table = class_files.read(options.classes) if options.classes else None
    target_table = class_files.read(options.target_classes) if options.target_classes else table
    ignored = proposal.ignored_values(options.ignore)
    found = _look(options, table, target_table, kept, say)
    guessed = table is None
    table = table or proposal.numbered(found.source_labels, ignore_given=bool(options.ignore))
    target_table = target_table or table
    every = [found.source_labels, *([found.target_labels] if found.target_labels else [])]
    for value in proposal.check_ignored(ignored, [table, target_table], every):
        say(f"--ignore {value}: no label holds it")
    classes, source_ids = _show_source(options, found.source_labels, table, ignored, console, say)
    if guessed:
        _warn_of_mixed_values(found.source_labels, say)
    target_ids: tuple[tuple[Key, str], ...] = ()
    if found.target_labels is not None:
        target_ids = _show_target(found.target_labels, target_table, classes, ignored, console)
    choice = sizes.choose(found.source.sizes, found.target.sizes, outputs.machine())
    for reason in choice.reasons:
        say(f"chosen: {reason}")
    planned = outputs.plan(
        options.output, found.source, found.target, classes, source_ids, target_ids, choice
    )
    return planned, len(found.target.pairing.pairs) if target_ids else 0


def _look(
    options, table: Table | None, target_table: Table | None, kept: Path | None, say
) -> Domains:
    """Find, pair and read everything."""
    progress, jobs = logs.progress, options.jobs
    source = domains.find(
        "source", options.source_images, options.source_labels, table, jobs, progress
    )
    target = domains.find(
        "target", options.target_images, options.target_labels, target_table, jobs, progress
    )
    _tell("source", source, say)
    _tell("target", target, say)

    def read(name: str, domain: Domain, of: Table | None) -> Labels:
        by_colour = of is not None and not of.by_id()
        labels = domains.read_labels(
            name, domain, by_colour=by_colour, kept=kept, jobs=jobs, progress=progress
        )
        if labels.scaled:
            say(
                f"{name}: {labels.scaled} labels have another size than their images, in the same "
                "proportions: they are scaled when they are read"
            )
        return labels

    source_labels = read("source", source, table)
    target_labels = read("target", target, target_table) if target.pairing else None
    return Domains(source, target, source_labels, target_labels)


def _warn_of_mixed_values(labels: Labels, say) -> None:
    """Say where many values look like the blurred edges of others."""
    mixed = proposal.mixed_values(labels)
    if len(mixed) < 2 or 4 * len(mixed) < len(labels.pixels):
        return
    share = 100 * sum(labels.pixels[value] for value in mixed) / labels.total
    say(
        f"warning: {len(mixed)} of {len(labels.pixels)} values, such as {text(mixed[0])} and "
        f"{text(mixed[1])}, {share:.2g} % of the pixels, lie between frequent ones, as the edges "
        "in label images that were resized with interpolation or saved as JPEG: each would be a "
        "class; name the true ones by --classes FILE, and the others are ignored"
    )


def _tell(name: str, domain: Domain, say) -> None:
    """What was found of a domain, and what has no partner."""
    pairing = domain.pairing
    if pairing is None:
        say(f"{name}: {len(domain.images)} images")
        return
    image, label = pairing.pairs[0]
    say(f"{name}: {len(pairing.pairs)} pairs, as {image.name} with {label.name}")
    for note in pairing.notes:
        say(f"{name}: {note}")
    for kind, alone in (
        ("images without label", pairing.images_alone),
        ("labels without image", pairing.labels_alone),
    ):
        if alone:
            say(f"{name}: {len(alone)} {kind}: {shortened([path.name for path in alone], 3)}")


def _show_source(options, labels: Labels, table: Table, ignored, console: Console, say):
    """Print the source's values; returns classes and id map. Raises UserError for too few."""
    meanings = proposal.meanings(labels, table, ignored)
    classes = proposal.classes(labels, meanings, table)
    value_table.show(console, "source labels", labels, meanings, classes)
    absent = [name for name in table.names if name not in classes.names]
    if absent:
        names = shortened(absent, 8)
        say(f"left out, since no source label shows them: {names}")
    unnamed = labels.rest + sum(
        labels.pixels[value] for value, meaning in meanings.items() if "in no" in meaning.why
    )
    doubtful = not options.classes or unnamed > 0.05 * labels.total
    fitting = proposal.fitting_tables(labels) if doubtful else []
    if others := [name for name in fitting if name != options.classes]:
        names = ", ".join(others)
        say(f"tables that name these values: --classes {names}")
    return classes, proposal.id_map(labels, table, classes.names, ignored)


def _show_target(labels: Labels, table: Table, classes: Classes, ignored, console: Console):
    """Print the target's values; returns the id map."""
    meanings = proposal.meanings(labels, table, ignored)
    value_table.show(console, "target labels, for scores alone", labels, meanings, classes)
    ids = proposal.id_map(labels, table, classes.names, ignored)
    if not ids:
        raise UserError(
            "--target-labels: no value stands for a class of the source; --target-classes gives "
            "the table of the target's values"
        )
    return ids


def _finish(options, say, labelled: int) -> None:
    """Draw the picture, time a few steps, and print the commands that come next."""
    config = outputs.load(options.output)
    outputs.draw(config, options.output, labelled=bool(labelled))
    say(f"written: {options.output / outputs.PICTURE_FILE}")
    recipe = shlex.quote(str(options.output / outputs.RECIPE_FILE))
    run_folder = shlex.quote(outputs.run_folder(options.output))
    say(f"look at {options.output / outputs.PICTURE_FILE} before you train")
    say("timing a few steps …")
    seconds = outputs.duration(config, options.output, labelled)
    quoted = " ".join(map(shlex.quote, pattern(options.target_images)))
    say("next:")
    if config.init and not Path(config.init).is_dir():
        say("  python scripts/download.py imagenet --convert   # the weights to start from")
    say(f"  python -m dasac_jax.main --config {recipe} --workdir {run_folder}")
    say(
        f"  python -m dasac_jax.predict {run_folder} --images {quoted} "
        f"--output {run_folder}/predictions --overlay"
    )
    say(f"the first takes about {seconds} here; stopped, the same command goes on")


OWN = Command("own", DESCRIPTION, add_arguments, run)


def main(arguments: Sequence[str] | None = None, *, console: Console | None = None) -> int:
    """scripts/prepare_data.py: `own`, `camvid` and the commands of `preparation.prepare_data`."""
    return prepare_data.main(arguments, console=console, further=[camvid.CAMVID, OWN])


def pattern(given: Sequence[str]) -> list[str]:
    """The places for another command: many files become a pattern that fits just these."""
    if len(given) <= 4:
        return list(given)
    first, last = min(given), max(given)
    prefix = last[: sum(1 for _ in takewhile(first.startswith, accumulate(last)))]
    if sorted(glob.glob(f"{glob.escape(prefix)}*")) == sorted(given):
        return [f"{prefix}*"]
    return [os.path.dirname(prefix) or "."]
