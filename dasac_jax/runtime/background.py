"""Work that goes on in a thread beside the main one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Background:
    """Calls functions in a thread, in their order; where one raises, those behind it are left.

    What is left is called again, before all others, with the next `start`, except where that has
    a newer function of the same key. report: called with each exception, in the thread.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._left: dict[Any, Callable[[], Any]] = {}
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def start(self, calls: dict[Any, Callable[[], Any]]) -> None:
        """Call functions, by key, once all calls before have ended."""
        self.wait()
        self._left = {key: x for key, x in self._left.items() if key not in calls} | calls
        self._thread = threading.Thread(target=self._run, name="background")
        self._thread.start()

    def wait(self) -> Exception | None:
        """Wait until the calls have ended; returns what the last one has raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._error

    def _run(self) -> None:
        self._error = None
        for key in list(self._left):
            try:
                self._left[key]()
            except Exception as error:  # of any kind: the main thread decides what to do
                self._error = error
                self._report(error)
                return
            del self._left[key]
