"""Checkpoints: the whole training state and a few facts, written by orbax.

A folder holds one sub-folder per kept step. Arrays are stored under the names they have in the
state (`params/head/kernel`), with no device axis, so they restore on any number of devices and
processes and can be read without the state's class. Several processes all write, each a share of
the arrays: they make the same calls of `open_manager`, `save` and `finish`. Any may read, by
itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax import traverse_util

from dasac_jax.checkpoints import integrity, steps
from dasac_jax.checkpoints.writer import Manager, finish, open_manager, reason, save
from dasac_jax.errors import UserError
from dasac_jax.models import matching

__all__ = ["facts", "finish", "latest_step", "open_manager", "read", "restore", "save"]

_LOG = logging.getLogger(__name__)


def latest_step(source: Manager | Path | str) -> int | None:
    """The newest step in a folder, None where there is none. Damage is not looked for."""
    found = steps.steps(_folder(source))
    return max((step for step, path in found.items() if integrity.is_whole(path)), default=None)


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
    (arrays, metadata), path = _newest(source, steps.read)
    matching.check_facts(path, metadata, needs or {})
    if like is None:
        return matching.networks(path, arrays, metadata), metadata
    return matching.filled(path, arrays, like), metadata


def read(source: Manager | Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest undamaged state as nested dictionaries of numpy arrays, and its metadata.

    For callers that need a part of a state (`params`, `batch_stats`) and learn from the metadata
    which network it belongs to. Damage and absence are treated as in `restore`.
    """
    (arrays, metadata), _ = _newest(source, steps.read)
    return traverse_util.unflatten_dict(arrays, sep="/"), metadata


def facts(source: Manager | Path | str) -> dict[str, Any]:
    """The newest state's metadata, its arrays being left unread. Raises UserError as `read`."""
    return _newest(source, steps.read_metadata)[0]


def _folder(source: Manager | Path | str) -> Path:
    """The folder of steps; a manager first finishes what it is writing."""
    if isinstance(source, Manager):
        source.wait()
        return source.newest.path
    return Path(source).absolute()


def _newest(source: Manager | Path | str, read_step: Callable[[Path], Any]) -> tuple[Any, Path]:
    """What `read_step` finds in the newest step that it can read, and that step's folder."""
    folder = _folder(source)
    found = steps.steps(folder)
    for path in found.values():
        try:
            return read_step(path), path
        except UserError:
            raise
        except Exception as error:  # orbax documents no type; what it raises depends on the damage
            why = reason(error)
            _LOG.warning("checkpoint %s is damaged: %s", path, why)
    if folder in found.values():
        raise UserError(f"checkpoint {folder} is damaged: {why}; give another step")
    if found:
        raise UserError(f"every checkpoint in {folder} is damaged: remove the folder, start anew")
    raise UserError(f"no checkpoint in {folder}")
