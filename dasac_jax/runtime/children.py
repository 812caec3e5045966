"""Commands that run one after the other, each in a process of its own that stops when this does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Children:
    """Runs commands; signals that ask this process to stop go to the one that is running.

    Each command has a process group of its own: the terminal would otherwise send it Ctrl-C as
    well, so that it came twice.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        """The signal that came, None where none has: then nothing more is to be begun."""
        self._running: subprocess.Popen | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end. Returns its exit code, or minus the signal that ended it."""
        self._running = subprocess.Popen(command, process_group=0)
        try:
            if self.stop is not None:  # it came before there was a process to pass it on to
                self._pass_on(self.stop)
            return self._running.wait()
        finally:
            self._running = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stop = signal.Signals(number)
        self._pass_on(self.stop)

    def _pass_on(self, number: signal.Signals) -> None:
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.kill(self._running.pid, number)


@contextmanager
def children() -> Iterator[Children]:
    """A `Children` that receives this process's signals; for the main thread.

    A signal that was ignored before remains so.
    """
    running = Children()
    before = {
        number: signal.signal(number, running._receive)
        for number in _PASSED_ON
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
