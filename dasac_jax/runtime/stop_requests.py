"""Stopping in good order: on SIGTERM, on SIGINT, and when the time that was given is over.

A signal does no more than leave a note. Whoever works in steps calls `check` between two of them,
and whoever has done something since the last checkpoint saves it when that raises `Stopped`.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

RESUME = 75  # exit code (EX_TEMPFAIL): all is saved, the same command goes on
_SHARE, _MOST = 0.1, 300.0  # of a time limit that is kept for saving; seconds at most

_received: list[signal.Signals] = []
_deadline: list[tuple[float, float]] = []  # (when to stop by time.monotonic(), minutes given)
_agree: list[Callable[[str | None], str | None]] = []


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The work was put down in good order and the same command goes on with it; says why."""


@contextmanager
def on_signals() -> Iterator[None]:
    """Take SIGTERM and SIGINT as requests to stop; a second SIGINT raises KeyboardInterrupt.

    For the main thread. A signal that was ignored before (a background job ignores SIGINT)
    remains so.
    """
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Request a stop in time to save before `minutes` are over, counted from here; 0: never.

    A tenth of the time is kept for saving, at most five minutes.
    """
    if minutes:
        seconds = 60 * minutes
        _deadline.append((time.monotonic() + seconds - min(_SHARE * seconds, _MOST), minutes))
    try:
        yield
    finally:
        _deadline.clear()


@contextmanager
def agreeing(agree: Callable[[str | None], str | None]) -> Iterator[None]:
    """Let several processes stop together.

    agree: called by every `requested` with this process's reason or None; what it returns counts.
    """
    _agree.append(agree)
    try:
        yield
    finally:
        _agree.pop()


def requested() -> str | None:
    """Why a stop is requested, None where it is not."""
    reason = None
    if _received:
        reason = _received[0].name
    elif _deadline and time.monotonic() >= _deadline[0][0]:
        reason = f"the time limit of {_deadline[0][1]:g} minutes"
    return _agree[-1](reason) if _agree else reason


def check() -> None:
    """Raise Stopped where a stop is requested."""
    reason = requested()
    if reason is not None:
        raise Stopped(reason)


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    received = signal.Signals(number)
    if received is signal.SIGINT and signal.SIGINT in _received:
        raise KeyboardInterrupt
    _received.append(received)
    hint = "; once more quits at once" if received is signal.SIGINT else ""
    # Not print: a handler may run in the middle of another one's.
    os.write(2, f"{received.name}: finishing the step and saving{hint}\n".encode())
