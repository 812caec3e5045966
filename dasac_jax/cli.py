"""What the commands with plain arguments share: the parser of arguments, and the exit codes."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from dasac_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError with one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help explains)")


def code_of(action: Callable[[], int | None], stopped: str) -> int:
    """Call `action`; return its result (0 for None), 2 after a mistake, 130 after Ctrl-C.

    A mistake (UserError) is printed to stderr in one line. stopped: what is printed after Ctrl-C.
    """
    try:
        return action() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"stopped; {stopped}", file=sys.stderr)
        return EXIT_INTERRUPTED


def jobs(text: str) -> int:
    """The value of --jobs, the number of files to work on at a time, out of its text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more is needed, not {text!r}")
    return int(text)
