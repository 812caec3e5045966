"""Writes checkpoints by orbax's manager, in the background."""

import functools
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from dasac_jax.checkpoints import integrity, steps
from dasac_jax.errors import UserError, one_line
from dasac_jax.files import check_room
from dasac_jax.models import matching
from dasac_jax.runtime import data_parallel, messages, processes
from dasac_jax.runtime.background import Background
from dasac_jax.version import __version__

_LOG = logging.getLogger(__name__)
# Arrays are compressed in pieces, into files of limited size, so that writing takes little memory.
_CHUNK_BYTES, _FILE_BYTES = 1 << 23, 1 << 25
_ROOM = 1.05  # bytes that a checkpoint may take on disk for each byte of its arrays
FORMAT = 4
Facts = dict[str, Any]
_numbers = itertools.count()  # of folders, alike on all processes, which open them in one order


class Folder:
    """Writes the steps of one folder, and keeps the newest `keep`; all processes call it alike."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep, name = path, keep, f"checkpoints/{next(_numbers)}"
        self._processes = messages.Messages(name)
        # For processes that it is not told of, orbax would wait by computing on their devices.
        named = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix=name
        )
        options = ocp.CheckpointManagerOptions(
            create=False, enable_async_checkpointing=False, lightweight_initialize=True,
            multiprocessing_options=named,
        )  # fmt: skip
        self._manager = ocp.CheckpointManager(path, options=options)
        there = self._processes.from_first(lambda: sorted(self._manager.all_steps()))
        while sorted(self._manager.all_steps()) != there:  # a network file system shows it later
            time.sleep(1)
            self._manager.reload()

    def write(self, step: int, arrays: dict[str, np.ndarray], facts: Facts) -> None:
        """Write a step, or raise OSError saying why not and leave the folder as it was."""
        try:
            self._write(step, arrays, facts)
        except Exception as error:  # orbax documents no type; a full disk is no OSError there
            raise OSError(f"cannot write step {step} to {self.path}: {one_line(error)}") from error

    def _write(self, step: int, arrays: dict[str, np.ndarray], facts: Facts) -> None:
        # The step is there when it is sealed. Only then are later ones and the oldest removed.
        room = int(_ROOM * sum(array.nbytes for array in arrays.values()) / jax.process_count())
        # Else orbax prints a stack trace for each write, and other processes wait for minutes.
        self._processes.together(lambda: check_room(self.path, room, f"{step}.part-", _FILE_BYTES))
        self._processes.on_first(lambda: steps.clear(self.path, step))
        self._remove(step)
        tree = {key: data_parallel.replicate_on_hosts(array) for key, array in arrays.items()}
        tree = traverse_util.unflatten_dict(tree, sep="/")
        pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree)
        state = ocp.args.PyTreeSave(tree, pieces, ocdbt_target_data_file_size=_FILE_BYTES)
        args = ocp.args.Composite(state=state, metadata=ocp.args.JsonSave(facts))
        try:
            self._processes.together(lambda: self._manager.save(step, args=args, force=True))
            self._processes.on_first(lambda: integrity.seal(self.path / str(step), arrays))
        except Exception:
            self._remove(step)
            self._processes.on_first(lambda: steps.clear(self.path))
            raise
        there = sorted(self._manager.all_steps())
        kept = [other for other in there if other <= step][-self._keep :]
        self._remove(*(other for other in there if other not in kept))
        self._processes.on_first(lambda: steps.clear(self.path))

    def _remove(self, *unwanted: int) -> None:
        """Remove steps that orbax knows. Without its files.json each is gone at once."""
        for step in set(self._manager.all_steps()).intersection(unwanted):
            seal = self.path / str(step) / integrity.CHECKSUM_FILE
            self._processes.on_first(lambda seal=seal: seal.unlink(missing_ok=True))
            self._manager.delete(step)


class Manager(NamedTuple):
    """The folders of the newest states and, where there is one, of the best, and their thread."""

    newest: Folder
    best: Folder | None
    background: Background


def open_manager(folder: Path | str, keep: int = 2, best: Path | str | None = None) -> Manager:
    """A writer that keeps the newest `keep` steps in `folder`, and one in `best`; call `finish`.

    No other may write there: unfinished steps are removed. Raises UserError where that fails.
    """
    folders = {Path(folder).absolute(): keep} | ({Path(best).absolute(): 1} if best else {})
    for path in folders if processes.is_first() else ():
        try:
            path.mkdir(parents=True, exist_ok=True)
            steps.clear(path)
        except OSError as error:
            raise UserError(f"cannot keep checkpoints in {path}: {error}") from error
    newest, *others = (Folder(*each) for each in folders.items())
    going_on = "%s; going on without, earlier checkpoints are kept"
    return Manager(newest, *others or [None], Background(lambda e: _LOG.warning(going_on, e)))


def save(
    manager: Manager, state: Any, *, metadata: Facts | None, best: Facts | None = None, copy=True
) -> None:
    """Store a state under its step number, in the background.

    state: any pytree of numpy or replicated arrays with an attribute `step`; copied before this
    returns, or without `copy` not to be changed before `finish`. metadata: what JSON can hold.
    best: the same for the folder of the best state, which is written before. None: not kept there.
    Checkpoints of the same or a later step are removed: a run that saves an earlier one has gone
    back. Where writing fails (a full disk) a warning tells of it, and those before are kept.
    """
    leaves, calls = matching.named_leaves(state), {}
    copied = data_parallel.copy_to_host if copy else np.asarray
    arrays = {key: copied(leaf) for key, leaf in leaves.items()}
    for folder, facts in ((manager.best, best), (manager.newest, metadata)):
        if facts is not None:
            facts = json.loads(json.dumps({**facts, "version": __version__, "format": FORMAT}))
            calls[folder] = functools.partial(folder.write, int(state.step), arrays, facts)
    manager.background.start(calls)


def finish(manager: Manager) -> None:
    """Wait until everything saved is on disk; raises UserError where something could not be."""
    if error := manager.background.wait():
        again = "make room, and give the same command again"
        raise UserError(f"{error}; earlier checkpoints are kept: {again}")
