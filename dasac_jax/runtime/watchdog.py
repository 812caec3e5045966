"""The processes of a run end together: a thread in each watches the others.

Through JAX's key-value store each process tells the others that it is alive, that it has ended and
why, and that a stop was requested. When one has ended, for whatever reason, all others do so within
a minute: with its exit code and its message, or with EXIT_LOST where it left no message.

JAX's own heartbeats cannot replace ours. When they stay away JAX aborts the process (SIGABRT and a
stack trace) without calling any Python; with its flag jax_enable_recoverability it tells nobody.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import jax

from dasac_jax.errors import EXIT_LOST, EXIT_RESUME
from dasac_jax.runtime import key_value_store

_CHECK_SECONDS = 0.5  # between two checks of the others
_SILENCE_SECONDS = 30.0  # without a heartbeat after which a process counts as dead
_FAREWELL_SECONDS = 5.0  # that process 0, which keeps the store, waits for the others to end
_ALL = "dasac-watch/"
_HEARTBEAT, _ENDED, _REQUEST = f"{_ALL}heartbeat/", f"{_ALL}ended/", f"{_ALL}request/"
_BROKEN = ("Gloo", "NCCL", "UNAVAILABLE")  # in the text of what JAX raises for a broken connection

_watchdogs: list["_Watchdog"] = []  # this process's only one; empty where there is one process
_ending = threading.Lock()  # taken by the first thread that ends the process, never released


def begin() -> None:
    """Watch the other processes from now on."""
    _watchdogs.append(_Watchdog())
    _watchdogs[0].start()


def is_on() -> bool:
    """Whether there are other processes, which are then being watched."""
    return bool(_watchdogs)


@contextmanager
def ending_together() -> Iterator[None]:
    """Around the whole program: when one process ends, all do, with the same exit code.

    A SystemExit reaches the others with the text of the exception that led to it. Any other
    exception is either a broken connection (EXIT_LOST) or a defect (traceback, code 1). Where
    there are no other processes this does nothing.
    """
    try:
        yield
    except SystemExit as exit_:
        if _watchdogs:
            if exit_.code == EXIT_RESUME and jax.process_index() != 0:
                # Process 0 has more files to close; this one ends when that one has ended.
                threading.Event().wait()
            _end_all(exit_.code or 0, str(exit_.__context__ or ""))
        raise
    except Exception as error:
        if not _watchdogs:
            raise
        if any(word in str(error) for word in _BROKEN):
            # If the other process left a message, the watchdog ends this one with it meanwhile.
            time.sleep(5 * _CHECK_SECONDS)
            why = str(error).splitlines()[0][:200]
            line = f"lost the connection to another process ({why}); the same command goes on"
            print(f"error: {line}", file=sys.stderr)
            _end_all(EXIT_LOST, line)
        traceback.print_exc()
        _end_all(1, f"a defect: {error}")
    if _watchdogs:
        key_value_store.barrier(f"{_ALL}end")
        _watchdogs.pop().stop()
        jax.distributed.shutdown()


def stop_request(reason: str | None) -> str | None:
    """Pass on this process's reason to stop; returns the one to stop for, on process 0 alone.

    Process 0 stops for its own reason or for that of any other. The others, without which it could
    not finish its step, get None: they go on until process 0 has saved, and end with it.
    """
    if not _watchdogs:
        return reason
    watchdog = _watchdogs[0]
    if jax.process_index() == 0:
        return reason or watchdog.request
    if reason and not watchdog.request_sent:
        watchdog.request_sent = True
        key_value_store.put(f"{_REQUEST}{jax.process_index()}", reason, replace=True)
    return None


class _Watchdog(threading.Thread):
    """Watches the other processes, and ends this one when one of them has ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.index, self.count = jax.process_index(), jax.process_count()
        self.request: str | None = None  # why another process wants all to stop
        self.request_sent = False
        self._finished = threading.Event()
        # By process: its last heartbeat, and how many checks ago that was new. Checks are counted
        # instead of seconds so that a process that was suspended does not, when it wakes up, take
        # the others for dead.
        self._seen = {i: ("", 0) for i in range(self.count) if i != self.index}

    def stop(self) -> None:
        self._finished.set()
        self.join()

    def run(self) -> None:
        beat = 0
        while not self._finished.wait(_CHECK_SECONDS):
            beat += 1
            try:
                key_value_store.put(f"{_HEARTBEAT}{self.index}", str(beat), replace=True)
                entries = key_value_store.entries(_ALL)
            except jax.errors.JaxRuntimeError:
                end(EXIT_LOST, "lost the connection to process 0; the same command goes on")
            self._check(entries)

    def _check(self, entries: dict[str, str]) -> None:
        for process, (last, checks) in self._seen.items():
            if f"{_ENDED}{process}" in entries:
                ended = json.loads(entries[f"{_ENDED}{process}"])
                end(ended["code"], f"process {process} has ended ({ended['line']})")
            self.request = self.request or entries.get(f"{_REQUEST}{process}")
            beat = entries.get(f"{_HEARTBEAT}{process}", "")
            self._seen[process] = (beat, 0 if beat != last else checks + 1)
            if checks * _CHECK_SECONDS > _SILENCE_SECONDS:
                end(
                    EXIT_LOST,
                    f"process {process} has given no sign of life for {_SILENCE_SECONDS:g} s; "
                    "the same command goes on",
                )


def end(code: int, line: str) -> None:
    """Print a line and end this process, from any of its threads, and with it all others."""
    with _ending:
        os.write(2, f"{'' if code == EXIT_RESUME else 'error: '}{line}\n".encode())
        _tell_and_exit(code, line)


def _end_all(code: int, line: str) -> None:
    """End this process, which has printed why, and with it all others."""
    with _ending:
        _tell_and_exit(code, line)


def _tell_and_exit(code: int, line: str) -> None:
    """Leave the others code and message, and exit at once.

    sys.exit would wait for threads and connections that need the processes that are gone.
    """
    if _watchdogs:
        index, count = _watchdogs[0].index, _watchdogs[0].count
        with suppress(jax.errors.JaxRuntimeError):
            ended = json.dumps({"code": code, "line": line})
            key_value_store.put(f"{_ENDED}{index}", ended, replace=True)
            deadline = time.monotonic() + _FAREWELL_SECONDS
            while index == 0 and time.monotonic() < deadline:
                if len(key_value_store.entries(_ENDED)) == count:
                    time.sleep(_CHECK_SECONDS)
                    break
                time.sleep(_CHECK_SECONDS / 5)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
