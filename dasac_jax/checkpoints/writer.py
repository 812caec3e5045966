"""Writes checkpoints by orbax's manager, in a thread in the background, one after the other."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from dasac_jax.checkpoints import integrity, steps
from dasac_jax.errors import UserError
from dasac_jax.models import matching
from dasac_jax.runtime import data_parallel, processes
from dasac_jax.version import __version__

_LOG = logging.getLogger(__name__)
# Arrays are compressed in pieces, into files of limited size, so that writing takes little memory.
_CHUNK_BYTES, _FILE_BYTES = 1 << 23, 1 << 25
_ROOM = 1.05  # bytes that a checkpoint may take on disk for each byte of its arrays
_numbers = itertools.count()  # of folders, alike on all processes, which open them in one order


class Folder:
    """Writes the steps of one folder, and keeps the newest `keep`; all processes call it alike."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep = path, keep
        name = f"checkpoints/{next(_numbers)}"
        self._together = processes.Messages(name).together
        # Orbax waits by messages for processes that are named. Otherwise it does so by computing
        # on all devices, which would come between the steps of the training.
        everyone = set(range(jax.process_count()))
        options = ocp.CheckpointManagerOptions(
            create=False, enable_async_checkpointing=False, lightweight_initialize=True,
            single_host_load_and_broadcast=True,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                active_processes=everyone, barrier_sync_key_prefix=name
            ),
        )  # fmt: skip
        self._manager = ocp.CheckpointManager(path, options=options)

    def write(self, step: int, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Write a step; where one process cannot, all raise and the folder is as it was.

        The step is there when it is sealed. Only then are others removed: later ones, and of the
        earlier ones all but the newest.
        """
        size = sum(array.nbytes for array in arrays.values()) // jax.process_count()
        self._together(lambda: _check_room(self.path, step, int(_ROOM * size)))
        self._on_first(lambda: steps.clear(self.path, step))
        self._drop(step)
        tree = {key: data_parallel.replicate_on_hosts(array) for key, array in arrays.items()}
        tree = traverse_util.unflatten_dict(tree, sep="/")
        pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(tree, pieces, ocdbt_target_data_file_size=_FILE_BYTES),
            metadata=ocp.args.JsonSave(metadata),
        )
        try:
            self._together(lambda: self._manager.save(step, args=args, force=True))
            self._on_first(lambda: integrity.seal(self.path / str(step), arrays))
        except Exception:
            self._drop(step)
            raise
        else:
            there = sorted(self._manager.all_steps())
            kept = [other for other in there if other <= step][-self._keep :]
            for other in set(there).difference(kept):
                self._drop(other)
        finally:
            self._on_first(lambda: steps.clear(self.path))

    def _drop(self, step: int) -> None:
        """Remove a step that orbax knows. Without its files.json it is gone at once."""
        if step in self._manager.all_steps():
            seal = self.path / str(step) / integrity.CHECKSUM_FILE
            self._on_first(lambda: seal.unlink(missing_ok=True))
            self._manager.delete(step)

    def _on_first(self, work: Callable[[], None]) -> None:
        self._together(lambda: work() if processes.is_first() else None)


class Job(NamedTuple):
    """A checkpoint to write, and where; its arrays must not change any more."""

    folder: Folder
    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


class Manager:
    """Writes jobs in a thread, in their order. One that fails stops those behind it.

    These are tried again, before others, with the next start: the best state is on disk before the
    newest one, which tells of its score. Only a newer job of the same folder takes their place.
    """

    def __init__(self, newest: Folder, best: Folder | None) -> None:
        self.newest, self.best = newest, best
        self._thread = threading.Thread()
        self._unsaved: list[Job] = []
        self._reason = ""

    def start(self, jobs: list[Job]) -> None:
        """Write jobs, once all attempts before have ended."""
        self.wait()
        newer = [job.folder for job in jobs]
        self._unsaved = [job for job in self._unsaved if job.folder not in newer] + jobs
        self._thread = threading.Thread(target=self._run, name="checkpoint")
        self._thread.start()

    def wait(self) -> str:
        """Wait for the background; says what could not be saved and why, else is empty."""
        if self._thread.ident is not None:
            self._thread.join()
        return self._reason if self._unsaved else ""

    def _run(self) -> None:
        while self._unsaved:
            folder, step, *what = self._unsaved[0]
            try:
                folder.write(step, *what)
            except Exception as error:  # orbax documents no type; a full disk is no OSError there
                self._reason = f"cannot write step {step} to {folder.path}: {reason(error)}"
                _LOG.warning("%s; going on without, earlier checkpoints are kept", self._reason)
                return
            del self._unsaved[0]


def open_manager(folder: Path | str, keep: int = 2, best: Path | str | None = None) -> Manager:
    """A writer that keeps the newest `keep` steps in `folder`, and one state in the folder `best`.

    Writing goes on in the background, a step appears when all of it is on disk, and only then are
    older ones removed: call `finish` at the end. Unfinished steps of killed processes are removed,
    so no other may write there. Raises UserError where a folder cannot be made or written.
    """
    folders = {Path(folder).absolute(): keep} | ({Path(best).absolute(): 1} if best else {})
    for path in folders if processes.is_first() else ():
        try:
            path.mkdir(parents=True, exist_ok=True)
            steps.clear(path)
        except OSError as error:
            raise UserError(f"cannot keep checkpoints in {path}: {error}") from error
    newest, *others = (Folder(*each) for each in folders.items())
    return Manager(newest, *others or [None])


def save(
    manager: Manager,
    state: Any,
    *,
    metadata: dict[str, Any] | None,
    best: dict[str, Any] | None = None,
) -> None:
    """Store a state under its step number, in the background.

    state: any pytree of arrays with an attribute `step`; numpy, or jax arrays that are the same
    on every device. It is copied before this returns, so its buffers may be donated. metadata:
    facts that JSON can hold; the package's version is added. best: those to keep it with in the
    folder of the best state, where it is that. It is written first, and the newest ones only when
    that has succeeded; without metadata, it alone. Checkpoints of the same or a later step are
    removed: a run that saves an earlier step has gone back and will write them again.

    Returns as soon as there is a copy and the save before it has ended. Where writing fails (a
    full disk) that is logged as a warning, and what was saved before stays as it is.
    """
    jobs, arrays = [], data_parallel.copy_to_host(matching.named_leaves(state))
    for folder, facts in ((manager.best, best), (manager.newest, metadata)):
        if facts is not None:
            facts = json.loads(json.dumps(facts))
            facts |= {"version": __version__, "format": steps.FORMAT}
            jobs.append(Job(folder, int(state.step), arrays, facts))
    manager.start(jobs)


def finish(manager: Manager) -> None:
    """Wait until everything saved is on disk; raises UserError where something could not be."""
    if failed := manager.wait():
        raise UserError(
            f"{failed}; earlier checkpoints are kept: make room, and give the same command again"
        )


def reason(error: Exception) -> str:
    """The text of an exception of orbax, shortened to one line."""
    text = str(error).strip()
    # TensorStore's text names many files first; the system's error code stands somewhere behind.
    if system := re.search(r"os_error_code='(\d+)'|^\[Errno (\d+)\]", text):
        return os.strerror(int(system[1] or system[2]))
    return text.split("\n")[0][:200] or type(error).__name__


def _check_room(folder: Path, step: int, size: int) -> None:
    """Raise OSError where a full disk, a quota or a limit leaves no room for `size` bytes.

    Orbax would print a stack trace for each of its writes, and other processes wait for minutes.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with tempfile.TemporaryDirectory(prefix=f"{step}.part-", dir=folder) as place:
        for number, start in enumerate(range(0, size, _FILE_BYTES)):
            with open(f"{place}/{number}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, min(_FILE_BYTES, size - start))
