"""Stopping without losing work: on SIGTERM, on SIGINT, and shortly before a time limit.

The handler of a signal only remembers it. Loops call `check` between two steps, which raises
`Stopped`, or ask `requested`: the training loop saves a checkpoint before it raises `Stopped`.

Commands that have nothing to save end at SIGINT wherever they are, by `interrupts`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SAVING_SHARE = 0.1  # of a time limit that is kept for saving
_SAVING_SECONDS = 300.0  # that are kept for saving at most

_interrupted: list[int] = []
_received: list[signal.Signals] = []
_deadline: list[tuple[float, float]] = []  # (when to stop by time.monotonic(), minutes given)
_agreements: list[Callable[[str | None], str | None]] = []  # see `agreeing`; the last one counts


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """A stop was requested, its text says by what; the same command goes on with the work."""


@contextmanager
def on_signals() -> Iterator[None]:
    """Take SIGTERM and SIGINT as requests to stop; a second SIGINT raises KeyboardInterrupt.

    For the main thread. A signal that was ignored before (a background job ignores SIGINT)
    remains so.
    """
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _remember) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextmanager
def interrupts() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, as Python does, and `check_interrupt` raise it once more.

    Where Python is in a destructor or in a weak reference's callback when the signal comes, as it
    often is while JAX compiles, it prints the exception and goes on. Outside the main thread, and
    where SIGINT is ignored or has another handler, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted.clear()


def check_interrupt() -> None:
    """Raise KeyboardInterrupt where one was raised within `interrupts`, and got lost."""
    if _interrupted:
        raise KeyboardInterrupt


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Request a stop in time to save before `minutes` are over, counted from here; 0: never.

    A tenth of the time is kept for saving, at most five minutes.
    """
    if minutes:
        seconds = 60 * minutes
        saving = min(_SAVING_SHARE * seconds, _SAVING_SECONDS)
        _deadline.append((time.monotonic() + seconds - saving, minutes))
    try:
        yield
    finally:
        _deadline.clear()


@contextmanager
def agreeing(agree: Callable[[str | None], str | None]) -> Iterator[None]:
    """Let several processes decide together whether to stop.

    agree: given this process's reason to stop, or None, it returns the reason that counts for all.
    `requested` calls it each time.
    """
    _agreements.append(agree)
    try:
        yield
    finally:
        _agreements.pop()


def requested() -> str | None:
    """Why a stop is requested, None where it is not."""
    reason = None
    if _received:
        reason = _received[0].name
    elif _deadline and time.monotonic() >= _deadline[0][0]:
        reason = f"the time limit of {_deadline[0][1]:g} minutes"
    return _agreements[-1](reason) if _agreements else reason


def check() -> None:
    """Raise Stopped where a stop is requested."""
    reason = requested()
    if reason is not None:
        raise Stopped(reason)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    _interrupted.append(number)
    raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    del frame
    received = signal.Signals(number)
    if received is signal.SIGINT and signal.SIGINT in _received:
        raise KeyboardInterrupt
    _received.append(received)
    hint = "; once more quits at once" if received is signal.SIGINT else ""
    # Not print, which must not be entered twice: the signal may have come in the middle of one.
    os.write(2, f"{received.name}: finishing the step and saving{hint}\n".encode())
