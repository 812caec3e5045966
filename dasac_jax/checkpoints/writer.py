"""Checkpoints written in the background, one after the other; what failed is kept and reported."""

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
    """What is to be written: arrays by name, which no one changes, and facts for JSON."""

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Manager:
    """Writes into one folder, at most one job at a time; made by `checkpoint.open_manager`.

    directory: where the steps lie. write: puts a job there as a whole, or raises and leaves what
    is there as it was.
    """

    def __init__(self, directory: Path, write: Callable[[Job], None]) -> None:
        self.directory = directory
        self._write = write
        self._lock = threading.Lock()  # of writing
        self._thread: threading.Thread | None = None
        self._unsaved: Job | None = None
        self._reason = ""

    def start(self, job: Job, after: Manager | None = None) -> None:
        """Write a job in the background, when the one before has ended, well or not.

        after: a manager whose own last job has to be on disk first; if it failed it is tried
        again, and where it fails again so does this job.
        """
        self.wait()
        with self._lock:
            self._unsaved = job
        self._thread = threading.Thread(target=self._run, args=(after,), name="checkpoint")
        self._thread.start()

    def wait(self) -> tuple[int, str] | None:
        """Wait for the background; the step that could not be saved and why, if it is the last."""
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
        """Write what is not on disk; whether nothing is left."""
        with self._lock:
            job = self._unsaved
            if job is None:
                return True
            try:
                self._write(job)
            except Exception as error:  # orbax names no type: a full disk is no OSError there
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
    """What an exception of orbax says, in one line of bearable length."""
    text = str(error).strip()
    # TensorStore names each file on the way, and what the system said somewhere behind.
    system = re.search(r"os_error_code='(\d+)'", text)
    return (
        os.strerror(int(system[1])) if system else text.split("\n")[0][:200] or type(error).__name__
    )
