"""Checkpoints: the whole training state and a few facts, written by orbax.

A folder holds one sub-folder per kept step. Arrays are stored under their names in the state
(`params/head/kernel`), with no device axis, so that any number of devices and processes can restore
them. All processes write, and make the same calls of `open_manager`, `save` and `finish`.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from dasac_jax.checkpoints import integrity, steps
from dasac_jax.checkpoints.writer import FORMAT, Facts, finish, open_manager, save
from dasac_jax.errors import UserError, one_line
from dasac_jax.models import matching
from dasac_jax.version import __version__

__all__ = [
    "facts", "finish", "first_with_steps", "latest_step", "open_manager", "read", "restore", "save"
]  # fmt: skip
_LOG = logging.getLogger(__name__)


def latest_step(source: Path | str) -> int | None:
    """The newest step in a folder, None where there is none. Damage is not looked for."""
    found = steps.steps(Path(source).absolute())
    return max((step for step, path in found.items() if integrity.is_whole(path)), default=None)


def first_with_steps(folders: Iterable[Path]) -> Path | None:
    """The first of some folders that has a step, None where none has; warns of steps cut short."""
    for folder in folders:
        if latest_step(folder) is not None:
            return folder
        for path in steps.steps(folder.absolute()).values():
            _LOG.warning(
                "checkpoint %s is not whole and is passed over: it was copied in part, or its run "
                "is writing it now, or was killed while it did", path,
            )  # fmt: skip
    return None


def restore(
    source: Path | str, like: Any = None, *, needs: Facts | None = None
) -> tuple[Any, Facts]:
    """The newest undamaged state and its metadata.

    source: a folder of steps, or one step's own, which then is the one that is read. like: a state
    whose tree, shapes and dtypes must be those stored. needs: expected metadata, such as arch.

    Returns a state as `like` with numpy leaves, bit for bit what was saved; without it {"student":
    variables, "teacher": variables, "class_prior": (C,)} of the network that the metadata name.
    A damaged checkpoint is reported, and the one before it taken. Raises UserError where none fits.
    """
    (arrays, metadata), path = _newest(source, _read_step)
    matching.check_facts(path, metadata, needs or {})
    if like is None:
        return matching.networks(path, arrays, metadata), metadata
    return matching.filled(path, arrays, like), metadata


def read(source: Path | str) -> tuple[dict[str, Any], Facts]:
    """The newest undamaged state as nested dictionaries of numpy arrays, and its metadata."""
    (arrays, metadata), _ = _newest(source, _read_step)
    return traverse_util.unflatten_dict(arrays, sep="/"), metadata


def facts(source: Path | str) -> Facts:
    """The newest state's metadata, its arrays being left unread. Raises UserError as `read`."""
    return _newest(source, _read_facts)[0]


def _newest(source: Path | str, read_step: Callable[[Path], Any]) -> tuple[Any, Path]:
    """What `read_step` finds in the newest step that it can read, and that step's folder."""
    folder = Path(source).absolute()
    found = steps.steps(folder)
    for path in found.values():
        try:
            return read_step(path), path
        except UserError:
            raise
        except Exception as error:  # orbax documents no type; what it raises depends on the damage
            why = one_line(error)
            _LOG.warning("checkpoint %s is damaged: %s", path, why)
    if folder in found.values():
        raise UserError(f"checkpoint {folder} is damaged: {why}; give another step")
    if found:
        raise UserError(f"every checkpoint in {folder} is damaged: remove the folder, start anew")
    raise UserError(f"no checkpoint in {folder}")


def _read_step(path: Path) -> tuple[dict[str, np.ndarray], Facts]:
    """Arrays by name, and facts, of one step's folder; raises as `_read_facts`.

    Format 1 had no files.json and does not name its format, 2 added it, and in 3 each process had
    its share of the arrays; in these, there is a checksum of the arrays in the metadata.
    """
    arrays, found = {}, _read_facts(path)
    integrity.check(path)
    shares = range(1, integrity.read_json(path).get("processes", 1))
    for share in [path, *(path / f"process_{number}" for number in shares)]:
        state, handler = share / "state", ocp.PyTreeCheckpointHandler()
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), handler.metadata(state).tree)
        tree = handler.restore(state, args=ocp.args.PyTreeRestore(restore_args=wanted))
        read = traverse_util.flatten_dict(tree, sep="/")
        if integrity.read_json(share).get("checksum") not in (None, integrity.checksum(read)):
            raise ValueError("the arrays are not those that were written (checksum)")
        arrays |= read
    return arrays, found


def _read_facts(path: Path) -> Facts:
    """The facts. Raises some exception where they are damaged, UserError for an unknown format."""
    integrity.check(path, below="metadata/")
    found = integrity.read_json(path)
    number = found.pop("format", 1)
    if number not in range(1, FORMAT + 1):
        raise UserError(
            f"checkpoint {path} has format {number}, written by dasac_jax {found.get('version')}; "
            f"this is {__version__}, which knows formats up to {FORMAT}: install that version"
        )
    return {key: found[key] for key in found if key not in ("checksum", "processes")}
