"""A lock on a folder: one process at a time works there."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from dasac_jax.errors import UserError

_LOG = logging.getLogger(__name__)

LOCK_FILE = "lock"
"""The lock of a run's folder, which stays there."""

_PASSING = ".lock"  # that of other folders, removed at the end


@contextmanager
def held(folder: Path, *, flag: str = "--workdir", wait: bool = False) -> Iterator[None]:
    """Lock a folder, which is made where missing, for this process.

    The kernel releases the lock when the process ends, in whatever way. Its file stays in a run's
    folder; in others, which `flag` names for error messages, it is hidden and goes with the lock.
    wait: for moments in a folder that is no run's: wait for whoever holds the lock, instead of
    refusing. Raises UserError where another process works there, or the folder cannot be written.
    Where the file system has no locks, a warning is logged and the work goes on.
    """
    passing = wait or flag != "--workdir"
    path = folder / (_PASSING if passing else LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_locked(path, flag, wait)
    except OSError as error:
        raise UserError(
            f"{flag} {folder} cannot be written ({error.strerror}): choose another folder"
        ) from error
    with file:
        try:
            yield
        finally:
            if passing:
                with suppress(OSError):
                    path.unlink()


def _open_locked(path: Path, flag: str, wait: bool) -> TextIO:
    """The lock's file, opened and locked, with this process's number in it.

    Raises UserError where another process holds the lock, OSError where the file cannot be opened.
    """
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as it is held)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            with file:
                file.seek(0)
                owner = file.read().strip() or "another process"
            raise UserError(
                f"{flag} {path.parent} is in use by {owner}: wait until that has ended, stop it, "
                f"or choose another {flag}"
            ) from error
        except OSError as error:
            _LOG.warning(
                "%s cannot be locked (%s): see to it that no other process works in this folder",
                path, error.strerror,
            )  # fmt: skip
            return file
        # Its last owner may have removed the file after it was opened here: then it locks nothing.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            return file
        file.close()
