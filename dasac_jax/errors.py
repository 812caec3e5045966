"""The one exception that users see, and the exit codes of all commands."""

import os
import re

EXIT_MISTAKE = 2
"""A mistake that the message on stderr names: bad flags, files that are missing or damaged."""
EXIT_RESUME = 75
"""A stop was requested and everything is saved; the same command goes on (EX_TEMPFAIL)."""
EXIT_LOST = 76
"""Another process of the run is gone; the same command goes on (EX_PROTOCOL)."""
EXIT_INTERRUPTED = 130
"""Ended at once by Ctrl-C, as shells report it: nothing was saved since the last checkpoint."""


class UserError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command lines print its text without a traceback and exit with EXIT_MISTAKE.
    """


def message(error: UserError | PermissionError) -> str:
    """What is printed of a mistake; files that may not be read or written are a user's too."""
    if isinstance(error, PermissionError):
        where = error.filename or "a file"
        return f"{where}: {error.strerror or error}: see to its permissions, or choose another"
    return str(error)


def one_line(error: Exception) -> str:
    """An exception's text on one line; the system's own words where it has an error number."""
    text = str(error).strip()
    # TensorStore's text names many files first; the system's error code stands somewhere behind.
    if system := re.search(r"os_error_code='(\d+)'|^\[Errno (\d+)\]", text):
        return os.strerror(int(system[1] or system[2]))
    return text.split("\n")[0][:200] or type(error).__name__
