"""The one exception that users see, and the exit codes of all commands."""

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
