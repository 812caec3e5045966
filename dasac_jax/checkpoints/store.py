"""Checkpoints: the whole training state and a few facts, written by orbax.

A folder holds one sub-folder per kept step. Arrays are stored under the names they have in the
state (`params/head/kernel`), with no device axis, so they restore on any number of devices and
processes and can be read without the state's class. Several processes all write, each a share of
the arrays: they make the same calls of `open_manager`, `save` and `finish`. Any may read, by
itself.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from dasac_jax.checkpoints import integrity, matching, orbax_files, shares, step_folders
from dasac_jax.checkpoints.writer import Job, Manager, reason
from dasac_jax.errors import UserError
from dasac_jax.runtime import processes
from dasac_jax.version import __version__

_LOG = logging.getLogger(__name__)
_managers = (
    itertools.count()
)  # numbers them, alike on all processes, which open them in the same order

# 1 had no files.json, and no "format" in its metadata; 2 was written by one process.
FORMAT = 3


def open_manager(folder: Path | str, keep: int = 2) -> Manager:
    """A writer that keeps the newest `keep` steps in `folder`, which is made where missing.

    Writing goes on in the background, a step appears when all of it is on disk, and only then are
    older ones removed: call `finish` at the end. Keep the best state apart in a folder of its own
    with keep=1. Unfinished steps of killed processes are removed, so no other may write there.
    Raises UserError where the folder cannot be written.
    """
    folder = Path(folder).absolute()
    if processes.is_first():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            step_folders.clear(folder)
        except OSError as error:
            raise UserError(f"cannot keep checkpoints in {folder}: {error}") from error
    messages = processes.Messages(f"checkpoints/{next(_managers)}")
    return Manager(folder, lambda job: shares.write(folder, job, keep, messages))


def save(
    manager: Manager,
    state: Any,
    *,
    metadata: dict[str, Any],
    copy: bool = True,
    after: Manager | None = None,
) -> None:
    """Store a state under its step number, in the background.

    state: any pytree of arrays with an attribute `step`; numpy, or jax arrays that are the same
    on every device. It is copied before this returns, so its buffers may be donated; without
    `copy` it must not change before `finish`. metadata: facts that JSON can hold; the package's
    version is added. after: a manager whose last state has to be on disk before this one appears,
    because the metadata describe it. Checkpoints of the same or a later step are removed: a run
    that saves an earlier step has gone back and will write them again.

    Returns as soon as there is a copy and the save before it has ended. Where writing fails (a
    full disk) that is logged as a warning, and what was saved before stays as it is.
    """
    make = np.array if copy else np.asarray
    leaves = matching.named_leaves(state)
    arrays = {key: make(leaves[key]) for key in shares.own_names(leaves)}
    ours = {
        "version": __version__,
        "format": FORMAT,
        "processes": shares.count(leaves),
    }
    facts = json.loads(json.dumps({**metadata, **ours}))
    manager.start(Job(int(state.step), arrays, facts), after)


def finish(manager: Manager) -> None:
    """Wait until everything saved is on disk.

    Raises UserError where the last state could not be saved.
    """
    failed = manager.wait()
    if failed is not None:
        step, why = failed
        raise UserError(
            f"cannot write step {step} to {manager.directory}: {why}; earlier checkpoints are "
            "kept: make room, and give the same command again"
        )


def latest_step(source: Manager | Path | str) -> int | None:
    """The newest step in a folder, None where there is none. Damage is not looked for."""
    return max(_steps(_folder(source)), default=None)


def restore(
    source: Manager | Path | str, like: Any = None, *, needs: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """The newest undamaged state and its metadata.

    source: a folder of steps, or one step's own folder, which then is the one that is read.
    like: a state of the configuration at hand; its tree, shapes and dtypes must be those stored.
    needs: expected metadata, such as arch and num_classes; one that the checkpoint lacks is not
    compared.

    Returns a state of the same tree with numpy leaves, bit for bit what was saved. Without `like`
    returns {"student": variables, "teacher": variables, "class_prior": (C,)}, their shapes being
    those of the network that the metadata name. A damaged checkpoint is reported and the one
    before it is taken. Raises UserError when none is left, or naming what does not fit.
    """
    arrays, metadata, path = _newest(source, _read_step)
    matching.check_facts(path, metadata, needs or {})
    if like is None:
        return matching.networks(path, arrays, metadata), metadata
    return matching.filled(path, arrays, like), metadata


def read(source: Manager | Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest undamaged state as nested dictionaries of numpy arrays, and its metadata.

    For callers that need a part of a state (`params`, `batch_stats`) and learn from the metadata
    which network it belongs to. Damage and absence are treated as in `restore`.
    """
    arrays, metadata, _ = _newest(source, _read_step)
    return traverse_util.unflatten_dict(arrays, sep="/"), metadata


def facts(source: Manager | Path | str) -> dict[str, Any]:
    """The newest state's metadata, its arrays being left unread. Raises UserError as `read`."""
    return _newest(source, _read_facts)[1]


def _folder(source: Manager | Path | str) -> Path:
    """The folder of steps; a manager first finishes what it is writing."""
    if isinstance(source, Manager):
        source.wait()
        return source.directory
    return Path(source).absolute()


def _steps(folder: Path) -> dict[int, Path]:
    """The steps that a path means, the newest first: a folder's, or the one whose folder it is."""
    if step_folders.is_step(folder):
        return {int(folder.name): folder}
    return step_folders.steps(folder)


def _newest(
    source: Manager | Path | str, read_step: Callable[[Path], Any]
) -> tuple[Any, dict[str, Any], Path]:
    """Arrays, metadata and folder of the newest checkpoint that `read_step` can read."""
    folder = _folder(source)
    steps = _steps(folder)
    for path in steps.values():
        try:
            return *read_step(path), path
        except UserError:
            raise
        except Exception as error:  # orbax documents no type; what it raises depends on the damage
            why = reason(error)
            _LOG.warning("checkpoint %s is damaged: %s", path, why)
    if folder in steps.values():
        raise UserError(f"checkpoint {folder} is damaged: {why}; give another step")
    if steps:
        raise UserError(f"every checkpoint in {folder} is damaged: remove the folder, start anew")
    raise UserError(f"no checkpoint in {folder}")


def _read_step(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Everything in one step's folder. Raises some exception if it is not as it was written."""
    metadata, written_by = _read_metadata(path, checksummed=integrity.check(path))
    arrays = {}
    for share in shares.folders(path, written_by):
        found = orbax_files.read_arrays(share)
        # In format 1 this checksum is the only one.
        if orbax_files.read_metadata(share)["checksum"] != integrity.checksum(found):
            raise ValueError("the arrays are not those that were written (checksum)")
        arrays |= found
    return arrays, metadata


def _read_facts(path: Path) -> tuple[None, dict[str, Any]]:
    checksummed = integrity.check(path, below="metadata/")
    return None, _read_metadata(path, checksummed=checksummed)[0]


def _read_metadata(path: Path, *, checksummed: bool) -> tuple[dict[str, Any], int]:
    """The metadata as saved, and the number of processes that wrote.

    Raises UserError for a format that is not known here.
    """
    metadata = orbax_files.read_metadata(path)
    del metadata["checksum"]
    found = metadata.pop("format", 1)
    if found not in range(1, FORMAT + 1):
        raise UserError(
            f"checkpoint {path} has format {found}, written by dasac_jax "
            f"{metadata.get('version')}; this is {__version__}, which knows formats up "
            f"to {FORMAT}: install that version"
        )
    if found > 1 and not checksummed:
        raise ValueError(f"{integrity.CHECKSUM_FILE} is missing")
    return metadata, metadata.pop("processes", 1)
