"""The processes of a cluster end together: a thread in each looks after the others.

What they have to say to each other lies in JAX's key-value store, which process 0 keeps: signs of
life, farewells, requests to stop. When one has ended, for whatever reason, so do all, within a
minute: with its exit code and what it said, or as LOST where it could say nothing.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax._src import distributed  # the store, which JAX offers nowhere else

from dasac_jax.runtime.stop_requests import RESUME

LOST = 76  # exit code (EX_PROTOCOL): another process is gone, the same command goes on

WEEK = 7 * 24 * 3600 * 1000  # milliseconds: no wait is too long as long as all are alive
_LOOK = 0.5  # seconds between two looks at the others
_SILENCE = 30.0  # seconds without a sign of life after which a process counts as dead
_FAREWELL = 5.0  # seconds that process 0, which keeps the store, waits for the others to end
_ALL = "dasac-watch/"
_ALIVE, _LEFT, _REQUEST = f"{_ALL}alive/", f"{_ALL}left/", f"{_ALL}request/"
_BROKEN = ("Gloo", "NCCL", "UNAVAILABLE")  # in what JAX raises where a connection broke

_watch: list["_Watch"] = []  # of this process, where there are several
_leaving = threading.Lock()  # by the first to come, for ever


def store() -> Any:
    """The key-value store that all processes share."""
    return distributed.global_state.client


def begin() -> None:
    """Look after the other processes from now on."""
    _watch.append(_Watch())
    _watch[0].start()


def is_on() -> bool:
    """Whether there are other processes."""
    return bool(_watch)


@contextmanager
def ending_together() -> Iterator[None]:
    """Around the whole program: with one process all of them end, with the same exit code.

    A SystemExit goes to the others with the message of the exception that it was raised for. Other
    exceptions are a connection that broke (code LOST) or a defect (traceback, code 1). Without
    other processes this does nothing.
    """
    try:
        yield
    except SystemExit as exit_:
        if _watch:
            if exit_.code == RESUME and jax.process_index() != 0:
                threading.Event().wait()  # for the first one, which has more to close
            _leave(exit_.code or 0, str(exit_.__context__ or ""))
        raise
    except Exception as error:
        if not _watch:
            raise
        if any(word in str(error) for word in _BROKEN):
            time.sleep(5 * _LOOK)  # the watch knows more, if there is more to be known
            why = str(error).splitlines()[0][:200]
            line = f"lost the connection to another process ({why}); the same command goes on"
            print(f"error: {line}", file=sys.stderr)
            _leave(LOST, line)
        traceback.print_exc()
        _leave(1, f"a defect: {error}")
    if _watch:
        store().wait_at_barrier(f"{_ALL}end", WEEK)
        _watch.pop().stop()
        jax.distributed.shutdown()


def stop_request(reason: str | None) -> str | None:
    """What process 0 makes of a reason to stop, its own or another's; None on the others.

    These go on until process 0 has saved, which could not finish its step without them; then they
    end with it.
    """
    if not _watch:
        return reason
    if jax.process_index() == 0:
        return reason or _watch[0].request
    if reason and not _watch[0].asked:
        _watch[0].asked = True
        store().key_value_set(f"{_REQUEST}{jax.process_index()}", reason, allow_overwrite=True)
    return None


class _Watch(threading.Thread):
    """Looks after the other processes; ends this one when one of them has ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.index, self.count = jax.process_index(), jax.process_count()
        self.request: str | None = None  # why another process wants all to stop
        self.asked = False
        self._finished = threading.Event()
        # By process: its last sign of life, and how many looks ago that came. Not seconds: a
        # process that was suspended must not take the others for dead.
        self._seen = {i: ("", 0) for i in range(self.count) if i != self.index}

    def stop(self) -> None:
        self._finished.set()
        self.join()

    def run(self) -> None:
        beat = 0
        while not self._finished.wait(_LOOK):
            beat += 1
            try:
                store().key_value_set(f"{_ALIVE}{self.index}", str(beat), allow_overwrite=True)
                entries = dict(store().key_value_dir_get(_ALL))
            except jax.errors.JaxRuntimeError:
                end(LOST, "lost the connection to process 0; the same command goes on")
            self._look(entries)

    def _look(self, entries: dict[str, str]) -> None:
        for process, (last, looks) in self._seen.items():
            if f"{_LEFT}{process}" in entries:
                farewell = json.loads(entries[f"{_LEFT}{process}"])
                end(farewell["code"], f"process {process} has ended ({farewell['line']})")
            self.request = self.request or entries.get(f"{_REQUEST}{process}")
            sign = entries.get(f"{_ALIVE}{process}", "")
            self._seen[process] = (sign, 0 if sign != last else looks + 1)
            if looks * _LOOK > _SILENCE:
                end(
                    LOST,
                    f"process {process} has given no sign of life for {_SILENCE:g} s; "
                    "the same command goes on",
                )


def end(code: int, line: str) -> None:
    """From a thread: end this process with one line."""
    with _leaving:
        os.write(2, f"{'' if code == RESUME else 'error: '}{line}\n".encode())
        _depart(code, line)


def _leave(code: int, line: str) -> None:
    """End this process, which has said why, and with it all others."""
    with _leaving:
        _depart(code, line)


def _depart(code: int, line: str) -> None:
    """Tell the others and end, at once: the usual way out waits for processes that are gone."""
    if _watch:
        index, count = _watch[0].index, _watch[0].count
        with suppress(jax.errors.JaxRuntimeError):
            farewell = json.dumps({"code": code, "line": line})
            store().key_value_set(f"{_LEFT}{index}", farewell, allow_overwrite=True)
            deadline = time.monotonic() + _FAREWELL
            while index == 0 and time.monotonic() < deadline:
                if len(store().key_value_dir_get(_LEFT)) == count:
                    time.sleep(_LOOK)
                    break
                time.sleep(_LOOK / 5)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
