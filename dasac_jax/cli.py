"""What all commands with plain arguments have in common: how they refuse, and how they end."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from dasac_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError, one line, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help explains)")


def code_of(action: Callable[[], int | None], stopped: str) -> int:
    """Do something; the exit code: its own (0 for None), 2 for mistakes, 130 for Ctrl-C.

    A mistake is told on stderr in its one line. stopped: what is told of Ctrl-C.
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
    """The value of --jobs: how many files to work on at a time."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more is needed, not {text!r}")
    return int(text)
