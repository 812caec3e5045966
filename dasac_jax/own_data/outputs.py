"""What the preparation of data of one's own writes: lists, a recipe, a picture; and its timing."""

from __future__ import annotations

import csv
import datetime
import io
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax.errors import UserError
from dasac_jax.files import png, write_file
from dasac_jax.own_data import recipe_file
from dasac_jax.own_data.domains import Domain
from dasac_jax.own_data.proposal import Classes, Key
from dasac_jax.own_data.sizes import Choice, Machine

RECIPE_FILE = "mine.py"
PICTURE_FILE = "look.png"
KEPT_FILE = "label_values.jsonl"
"""What was read of each label, so that a command that was stopped goes on."""


class Planned(NamedTuple):
    """The text of each file to be written, and where the picture goes."""

    texts: dict[Path, str]
    picture: Path


def machine() -> Machine:
    """What JAX would train on here."""
    import jax

    accelerator = jax.default_backend() != "cpu"
    if accelerator:
        memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 16 * 2**30)
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.device_count()
    return Machine(accelerator, jax.device_count(), memory)


def run_folder(output: Path) -> str:
    """Where the printed commands put the run."""
    return f"runs/{output.resolve().name}"


def plan(
    output: Path,
    source: Domain,
    target: Domain,
    classes: Classes,
    source_ids: Sequence[tuple[Key, str]],
    target_ids: Sequence[tuple[Key, str]],
    choice: Choice,
) -> Planned:
    """The files for two domains, their paths relative to the deepest folder that all share."""
    listed = [*source.pairing.pairs]
    labelled = target.pairing.pairs if target_ids else ()
    every = [path for pair in (*listed, *labelled) for path in pair] + list(target.images)
    root = Path(os.path.commonpath([path.parent for path in every]))
    lists = {
        "source_train": listed,
        "target_train": [(image,) for image in target.images],
    }
    if labelled:
        lists["val"] = [*labelled]
    texts = {output / "lists" / f"{name}.txt": _list(rows, root) for name, rows in lists.items()}
    path = output / RECIPE_FILE
    texts[path] = recipe_file.text(
        path, run_folder(output), root, classes, source_ids, target_ids, choice.values,
        choice.reasons,
    )  # fmt: skip
    return Planned(texts, output / PICTURE_FILE)


def write(planned: Planned, output: Path, *, force: bool) -> None:
    """Write all files. Raises UserError where another file is in the way, unless `force`."""
    there = [path for path in planned.texts if path.exists()]
    other = [path for path in there if path.read_bytes() != planned.texts[path].encode()]
    if planned.picture.exists() and len(there) < len(planned.texts):
        other.append(planned.picture)
    stale = output / "lists" / "val.txt"
    if stale.exists() and stale not in planned.texts:
        other.append(stale)
    if other and not force:
        raise UserError(
            f"{', '.join(map(str, other))} is there and would be overwritten: choose another "
            "--output, or give --force"
        )
    for path, content in planned.texts.items():
        write_file(path, content)
    if stale not in planned.texts:
        stale.unlink(missing_ok=True)


def load(output: Path) -> ConfigDict:
    """The configuration of the recipe that was written, checked as training does it."""
    config = runpy.run_path(str(output / RECIPE_FILE))["get_config"]()
    recipe.check(config)
    return config


def draw(config: ConfigDict, output: Path, *, labelled: bool) -> None:
    """Draw the picture of a few images and labels. Raises UserError for unreadable files."""
    from dasac_jax.own_data import look
    from dasac_jax.training.workdir import Run

    run = Run(config, output)
    val = run.open("val") if labelled else None
    picture = look.picture(run.open("source_train"), run.open("target_train"), val, run.classes)
    write_file(output / PICTURE_FILE, png(picture))


def duration(config: ConfigDict, output: Path, labelled: int) -> str:
    """How long the recipe will take here, in words."""
    from dasac_jax.runtime import program_cache
    from dasac_jax.training import timing
    from dasac_jax.training.workdir import Run

    program_cache.keep_programs()
    found = timing.estimate(Run(config, output), labelled)
    each = " and ".join(
        f"{found.steps[stage]} steps of {seconds:.2g} s ({stage})"
        for stage, seconds in found.each.items()
    )
    minutes = max(1, round(found.seconds / 60))
    words = f"{minutes} min" if minutes < 120 else str(datetime.timedelta(minutes=minutes))[:-3]
    return f"{words}, {each}"


def _list(rows: Sequence[tuple[Path, ...]], root: Path) -> str:
    """The lines of a list file; paths with spaces are quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=" ", lineterminator="\n")
    writer.writerows([path.relative_to(root).as_posix() for path in row] for row in rows)
    return buffer.getvalue()
