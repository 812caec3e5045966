"""Checkpoints: the whole training state and a few facts, written by orbax, which only this knows.

A folder holds one sub-folder per kept step. Arrays are stored under the names they have in the
state (`params/head/kernel`), with no device axis, so they restore on any number of devices and
can be read without the state's class.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

import dasac_jax
from dasac_jax.errors import UserError
from dasac_jax.interop.names import variable_shapes

_LOG = logging.getLogger(__name__)
_ITEMS = ("state", "metadata")
_DIFFERENCES_NAMED = 3
# Arrays are compressed and files are filled in such pieces, each core at its own: a writer takes
# little memory besides the arrays.
_CHUNK_BYTES = 1 << 23
_FILE_BYTES = 1 << 25


class _AsItLies(np.ndarray):
    """An array that orbax does not copy before it writes: it need not guard against changes."""

    def __deepcopy__(self, memo: dict) -> np.ndarray:
        return self


def open_manager(folder: Path | str, keep: int = 2) -> ocp.CheckpointManager:
    """A writer that keeps the newest `keep` steps in `folder`, which is made where missing.

    Writing is atomic (beside, then renamed) and goes on in the background: call `finish` at the
    end. Keep the best state apart in a folder of its own with keep=1. Raises UserError where the
    folder cannot be written.
    """
    folder = Path(folder).absolute()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True
    )
    try:
        return ocp.CheckpointManager(folder, options=options, item_names=_ITEMS)
    except OSError as error:
        raise UserError(f"cannot keep checkpoints in {folder}: {error}") from error


def save(
    manager: ocp.CheckpointManager, state: Any, *, metadata: dict[str, Any], copy: bool = True
) -> None:
    """Store a state under its step number.

    state: any pytree of arrays with an attribute `step`; numpy, or jax arrays that are the same
    on every device. It is copied before this returns, so its buffers may be donated; without
    `copy` it must not change before `finish`. metadata: facts that JSON can hold; the package's
    version is added. Checkpoints of the same or a later step are replaced: whoever saves an
    earlier step could not restore them.
    """
    make = np.array if copy else np.asarray
    arrays = {key: make(leaf).view(_AsItLies) for key, leaf in _named_leaves(state).items()}
    step = int(state.step)
    facts = {**metadata, "version": dasac_jax.__version__, "checksum": _checksum(arrays)}
    try:
        manager.wait_until_finished()
        for stale in _steps(Path(manager.directory)):
            if stale >= step:
                manager.delete(stale)
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(
                    traverse_util.unflatten_dict(arrays, sep="/"),
                    save_args=traverse_util.unflatten_dict(
                        {key: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES) for key in arrays}, sep="/"
                    ),
                    ocdbt_target_data_file_size=_FILE_BYTES,
                ),
                metadata=ocp.args.JsonSave(facts),
            ),
            force=True,
        )
    except OSError as error:
        raise UserError(f"cannot write step {step} to {manager.directory}: {error}") from error


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until everything saved is on disk and close the writer."""
    try:
        manager.wait_until_finished()
        manager.close()
    except OSError as error:
        raise UserError(f"cannot write to {manager.directory}: {error}") from error


def latest_step(source: ocp.CheckpointManager | Path | str) -> int | None:
    """The newest step in a folder, None where there is none. Damage is not looked for."""
    return max(_steps(_folder(source)), default=None)


def restore(
    source: ocp.CheckpointManager | Path | str, like: Any = None
) -> tuple[Any, dict[str, Any]]:
    """The newest undamaged state and its metadata.

    like: a state of the configuration at hand; its tree, shapes and dtypes must be those stored.
    Returns a state of the same tree with numpy leaves, bit for bit what was saved. Without `like`
    returns {"student": variables, "teacher": variables, "class_prior": (C,)}, their shapes being
    those of the network that the metadata name. A damaged checkpoint is reported and the one
    before it is taken. Raises UserError when none is left, or naming the first arrays that do not
    fit.
    """
    folder = _folder(source)
    arrays, metadata, step = _newest(folder, _read_step)
    path = folder / str(step)
    if like is None:
        return _networks(path, arrays, metadata), metadata
    needed = _named_leaves(like)
    _refuse(path, _differences(arrays, needed), "give the configuration that it was written with")
    leaves = [arrays[key] for key in needed]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), metadata


def read(source: ocp.CheckpointManager | Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest undamaged state as nested dictionaries of numpy arrays, and its metadata.

    For whoever needs a part of a state (`params`, `batch_stats`) and learns from the metadata
    which network it belongs to. Damage and absence are treated as in `restore`.
    """
    arrays, metadata, _ = _newest(_folder(source), _read_step)
    return traverse_util.unflatten_dict(arrays, sep="/"), metadata


def facts(source: ocp.CheckpointManager | Path | str) -> dict[str, Any]:
    """The newest state's metadata, its arrays being left unread. Raises UserError as `read`."""
    return _newest(_folder(source), _read_facts)[1]


def _folder(source: ocp.CheckpointManager | Path | str) -> Path:
    """The folder of steps; a writer has first put down what it still holds."""
    if isinstance(source, ocp.CheckpointManager):
        source.wait_until_finished()
        return Path(source.directory)
    return Path(source).absolute()


def _steps(folder: Path) -> list[int]:
    """Steps in a folder. Unfinished ones have other names: orbax renames when all is written."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def _newest(folder: Path, read_step: Callable[[Path], Any]) -> tuple[Any, dict[str, Any], int]:
    """Arrays, metadata and step of the newest checkpoint that `read_step` can read."""
    steps = _steps(folder)
    for step in reversed(steps):
        try:
            arrays, metadata = read_step(folder / str(step))
        except Exception as error:  # orbax names no type: what it raises depends on the damage
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            _LOG.warning("checkpoint %s is damaged: %s", folder / str(step), reason)
        else:
            return arrays, metadata, step
    if steps:
        raise UserError(f"every checkpoint in {folder} is damaged: remove the folder, start anew")
    raise UserError(f"no checkpoint in {folder}")


def _read_step(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Everything in one step's folder. Raises some exception if it is not as it was written."""
    items = _items(path, state=ocp.args.StandardRestore(), metadata=ocp.args.JsonRestore())
    arrays = traverse_util.flatten_dict(items["state"], sep="/")
    metadata = dict(items["metadata"])
    # The array files carry no checksum of their own that would find a changed byte.
    if metadata.pop("checksum") != _checksum(arrays):
        raise ValueError("the arrays are not those that were written (checksum)")
    return arrays, metadata


def _read_facts(path: Path) -> tuple[None, dict[str, Any]]:
    metadata = dict(_items(path, metadata=ocp.args.JsonRestore())["metadata"])
    del metadata["checksum"]
    return None, metadata


def _items(path: Path, **args: Any) -> Any:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(*_ITEMS)) as checkpointer:
        return checkpointer.restore(path, args=ocp.args.Composite(**args))


def _networks(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> dict:
    """Student, teacher and class prior out of named arrays, checked against their network."""
    for key in ("arch", "num_classes"):
        if key not in metadata:
            raise UserError(f"checkpoint {path} does not say its {key}: it holds no whole network")
    classes = int(metadata["num_classes"])
    student = {
        key: jax.ShapeDtypeStruct(shape, np.float32)
        for key, shape in variable_shapes(metadata["arch"], classes).items()
    }
    needed = student | {f"teacher/{key}": leaf for key, leaf in student.items()}
    needed["class_prior"] = jax.ShapeDtypeStruct((classes,), np.float32)
    found = {
        key: array
        for key, array in arrays.items()
        if key in needed or key.startswith(("params/", "batch_stats/", "teacher/"))
    }
    _refuse(
        path, _differences(found, needed), f"it is not {metadata['arch']} for {classes} classes"
    )
    tree = traverse_util.unflatten_dict(found, sep="/")
    return {
        "student": {name: tree[name] for name in ("params", "batch_stats")},
        "teacher": tree["teacher"],
        "class_prior": tree["class_prior"],
    }


def _refuse(path: Path, differences: list[str], what: str) -> None:
    """Raise UserError where there are differences, with the first of them and `what` to do."""
    if differences:
        named = "; ".join(differences[:_DIFFERENCES_NAMED])
        more = len(differences) - _DIFFERENCES_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise UserError(f"checkpoint {path} {named}{rest}: {what}")


def _named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as in "params/head/kernel", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    """CRC-32 over names, types, shapes and bytes of all arrays."""
    value = 0
    for key in sorted(arrays):
        array = np.asarray(arrays[key])
        value = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), value)
        # Turned kernels are read in pieces, so that no second one lies in memory.
        for piece in [array] if array.flags.c_contiguous else array:
            value = zlib.crc32(np.ascontiguousarray(piece).reshape(-1).view(np.uint8), value)
    return value


def _differences(stored: dict[str, np.ndarray], needed: dict[str, Any]) -> list[str]:
    """What keeps stored arrays from filling the needed tree, in words."""
    words = [f"lacks {key}" for key in needed if key not in stored]
    words += [f"holds {key}, which is not needed" for key in stored if key not in needed]
    for key in needed:
        if key not in stored:
            continue
        leaf = needed[key] if hasattr(needed[key], "dtype") else np.asarray(needed[key])
        here, there = (stored[key].shape, stored[key].dtype), (leaf.shape, leaf.dtype)
        if here[0] != there[0]:
            words.append(f"holds {key} {here[0]}, this configuration needs {there[0]}")
        elif here[1] != there[1]:
            words.append(f"holds {key} as {here[1]}, this configuration needs {there[1]}")
    return words
