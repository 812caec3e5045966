"""Folders of steps, one sub-folder to a checkpoint, and the reader of what lies in one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from dasac_jax.checkpoints import integrity
from dasac_jax.errors import UserError
from dasac_jax.version import __version__

FORMAT = 4
_AS_NUMPY = ocp.RestoreArgs(restore_type=np.ndarray)
_ASIDE = ".replaced"
_OURS = re.compile(rf"(\d+)({_ASIDE}|\.part\b.*|\.removed\b.*|\.orbax-checkpoint-tmp.*)?")


def steps(folder: Path) -> dict[int, Path]:
    """The steps that a path means, the newest first: a folder's, or the one whose folder it is."""
    if folder.name.isdecimal() and any((folder / x).exists() for x in ("state", "files.json")):
        return {int(folder.name): folder}
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = path.name.removesuffix(_ASIDE)
        aside = path.name != number and integrity.is_whole(folder / number)
        if number.isdecimal() and path.is_dir() and not aside:
            found[int(number)] = path
    return dict(sorted(found.items(), reverse=True))


def clear(folder: Path, step: int | None = None) -> None:
    """Remove what is not whole, put back what was set aside for it, and set `step` aside.

    What was set aside for a step that is whole is removed. Raises OSError where it cannot be.
    """
    for path in sorted(folder.iterdir()):
        if match := _OURS.fullmatch(path.name):
            place = folder / match[1]
            if match[2] not in (None, _ASIDE) or not integrity.is_whole(path):
                shutil.rmtree(path)
            elif path != place:
                shutil.rmtree(path) if place.exists() else os.rename(path, place)
    if step is not None and (path := folder / str(step)).exists():
        os.rename(path, f"{path}{_ASIDE}")
        path.mkdir()  # for orbax to remove: it knows the step


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and metadata, of one step's folder; raises as `read_metadata`.

    Format 1 had no files.json and does not name its format, 2 added it, and in 3 each process had
    its share of the arrays; in these, there is a checksum of the arrays in the metadata.
    """
    integrity.check(path)
    arrays, metadata = {}, read_metadata(path)
    shares = integrity.read_json(path).get("processes", 1)
    for share in [path, *(path / f"process_{number}" for number in range(1, shares))]:
        state, handler = share / "state", ocp.PyTreeCheckpointHandler()
        wanted = jax.tree.map(lambda _: _AS_NUMPY, handler.metadata(state).tree)
        found = handler.restore(state, args=ocp.args.PyTreeRestore(restore_args=wanted))
        found = traverse_util.flatten_dict(found, sep="/")
        sums = integrity.read_json(share)
        if "checksum" in sums and sums["checksum"] != integrity.checksum(found):
            raise ValueError("the arrays are not those that were written (checksum)")
        arrays |= found
    return arrays, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata. Raises some exception where they are not as they were written.

    Raises UserError for a format that is not known here.
    """
    integrity.check(path, below="metadata/")
    metadata = integrity.read_json(path)
    found = metadata.pop("format", 1)
    if found not in range(1, FORMAT + 1):
        raise UserError(
            f"checkpoint {path} has format {found}, written by dasac_jax "
            f"{metadata.get('version')}; this is {__version__}, which knows formats up "
            f"to {FORMAT}: install that version"
        )
    return {key: metadata[key] for key in metadata if key not in ("checksum", "processes")}
