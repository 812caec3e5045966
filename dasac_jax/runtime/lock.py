"""A lock on a folder: one process at a time works there."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dasac_jax.errors import UserError

_LOG = logging.getLogger(__name__)

LOCK_FILE = "lock"
"""The file of the lock on a run's folder."""

HIDDEN_FILE = ".lock"
"""That on a folder of files which programs of users list, too."""


@contextmanager
def held(folder: Path, *, flag: str = "--workdir", name: str = LOCK_FILE) -> Iterator[None]:
    """Lock a folder, which is made where missing, for this process.

    flag: the one that names the folder, for error messages. name: of the lock's file in it.

    The kernel releases the lock when the process ends, in whatever way; the file stays. Raises
    UserError where another process works there, or the folder cannot be written. Where the file
    system has no locks, a warning is logged and the work goes on.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as it is held)
    except OSError as error:
        raise UserError(
            f"{flag} {folder} cannot be written ({error.strerror}): choose another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{flag} {folder} is in use by {file.read().strip() or 'another process'}: "
                f"wait until that has ended, stop it, or choose another {flag}"
            ) from error
        except OSError as error:
            _LOG.warning(
                "%s cannot be locked (%s): see to it that no other process works in this folder",
                path, error.strerror,
            )  # fmt: skip
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield
