"""Writes checkpoints in a thread in the background, one after the other."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One checkpoint to write: arrays by name, which must not change any more, and metadata."""

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Manager:
    """Writes the steps of one folder, one at a time; made by `store.open_manager`.

    directory: the folder of steps. write: writes a whole step there, or raises and leaves the
    folder as it was. The last step is kept until it is on disk, so that it can be tried again.
    """

    def __init__(self, directory: Path, write: Callable[[Job], None]) -> None:
        self.directory = directory
        self._write = write
        self._lock = threading.Lock()  # held while a step is written
        self._thread: threading.Thread | None = None
        self._unsaved: Job | None = None
        self._reason = ""

    def start(self, job: Job, after: Manager | None = None) -> None:
        """Write a step in the background, once the attempt to write the one before has ended.

        after: a manager whose own last step has to be on disk first. If writing that failed it is
        tried again; where it fails again, this step fails too.
        """
        self.wait()
        with self._lock:
            self._unsaved = job
        self._thread = threading.Thread(target=self._run, args=(after,), name="checkpoint")
        self._thread.start()

    def wait(self) -> tuple[int, str] | None:
        """Wait for the background; the last step and a reason where it could not be saved."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return None if self._unsaved is None else (self._unsaved.step, self._reason)

    def _run(self, after: Manager | None) -> None:
        if after is None or after._flush():
            self._flush()
        else:
            self._failed(f"{after.directory} could not be written before")

    def _flush(self) -> bool:
        """Write the last step if it is not on disk yet; returns whether it is then."""
        with self._lock:
            job = self._unsaved
            if job is None:
                return True
            try:
                self._write(job)
            except Exception as error:  # orbax documents no type; a full disk is no OSError there
                self._failed(reason(error))
                return False
            self._unsaved = None
            return True

    def _failed(self, why: str) -> None:
        self._reason = why
        _LOG.warning(
            "cannot write step %d to %s: %s; going on without, earlier checkpoints are kept",
            self._unsaved.step, self.directory, why,
        )  # fmt: skip


def reason(error: Exception) -> str:
    """The text of an exception of orbax, shortened to one line."""
    text = str(error).strip()
    # TensorStore's text names many files first; the system's error code stands somewhere behind.
    system = re.search(r"os_error_code='(\d+)'", text)
    return (
        os.strerror(int(system[1])) if system else text.split("\n")[0][:200] or type(error).__name__
    )
