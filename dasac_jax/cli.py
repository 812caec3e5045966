"""What the commands with plain arguments share: the parser of arguments, and the exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from dasac_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError, message
from dasac_jax.runtime import stop_requests


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError with one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help explains)")


def code_of(action: Callable[[], int | None], stopped: str) -> int:
    """Call `action`; return its result (0 for None), 2 after a mistake, 130 after Ctrl-C.

    A mistake (UserError, PermissionError) is printed to stderr in one line. stopped: what is
    printed after Ctrl-C.
    """
    try:
        with stop_requests.interrupts():
            return action() or 0
    except (UserError, PermissionError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"stopped; {stopped}", file=sys.stderr)
        return EXIT_INTERRUPTED


def leave(code: int) -> None:
    """End the process with an exit code other than 0; after Ctrl-C at once.

    XLA's threads may be compiling then, and crash when the interpreter ends before they do.
    """
    if code == EXIT_INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def jobs(text: str) -> int:
    """The value of --jobs, the number of files to work on at a time, out of its text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more is needed, not {text!r}")
    return int(text)
