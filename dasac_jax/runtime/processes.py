"""Several processes, on one host or many, train as one.

JAX connects them. Process 0 alone reads and writes the work directory; what it finds there it hands
to the others, so that none of them depends on how fast a shared file system shows them a change.
"""

import itertools
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the coordinator's address, which JAX tells nowhere else
from jax.experimental import multihost_utils

from dasac_jax.errors import UserError
from dasac_jax.runtime import watchdog
from dasac_jax.runtime.watchdog import WEEK, store

_CONNECT = 60.0  # seconds to reach the coordinator
_COME = 300.0  # seconds for all processes to start
_HEARTBEAT = 50  # seconds after which JAX ends all by itself; our watch is faster and says why


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connect to the other processes; before the first use of a device.

    coordinator: HOST:PORT that process 0 is to listen at. With nothing given, JAX looks for a
    cluster (SLURM, Open MPI, Kubernetes, TPU pods …); where it finds none, or num_processes alone
    is given as 1, this process works by itself. Raises UserError for some of the three without the
    others, and for values that cannot be; the program ends with code 2 where the coordinator
    cannot be reached within a minute.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    if given == {"coordinator": None, "num_processes": 1, "process_id": None}:
        return
    _check(given)
    # It would take SIGTERM away from whoever stops in good order.
    jax.config.update("jax_enable_preemption_service", False)
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    joined = threading.Event()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while Python cannot answer it
    threading.Thread(target=_give_up, args=(joined,), daemon=True).start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(2 * _COME),  # behind ours, which ends with a message
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    except ValueError as error:
        if coordinator is None and str(error).startswith("coordinator_address"):
            return  # there is no cluster
        raise UserError(f"the cluster that JAX has found cannot be used: {error}") from error
    except jax.errors.JaxRuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"the processes cannot be connected: {first_line}") from error
    finally:
        joined.set()
        signal.signal(signal.SIGINT, interrupt)
    if jax.process_count() > 1:
        if jax.device_count() != jax.process_count() * jax.local_device_count():
            raise UserError("each process needs equally many devices")
        watchdog.begin()


def _check(given: dict[str, Any]) -> None:
    """Raise UserError for flags that cannot be."""
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing:
        raise UserError(
            f"missing: {' and '.join(missing)}; give --coordinator HOST:PORT, --num_processes and "
            "--process_id, or none of them where JAX knows the cluster"
        )
    host, _, port = given["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator is {given['coordinator']!r}: HOST:PORT is needed")
    if not 0 <= given["process_id"] < given["num_processes"]:
        raise UserError(
            f"--process_id is {given['process_id']}: a number from 0 to "
            f"{given['num_processes'] - 1} is needed, of --num_processes {given['num_processes']}"
        )
    if given["process_id"] == 0:
        _check_port(int(port))


def _check_port(port: int) -> None:
    """Raise UserError where this process cannot listen; JAX 0.10 crashes there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator: port {port} is not free ({error.strerror}): choose another one"
            ) from error


def _give_up(joined: threading.Event) -> None:
    """End this process where the others do not come: JAX would abort with a stack trace."""
    if joined.wait(_CONNECT):
        return
    address = distributed.global_state.coordinator_address
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        watchdog.end(
            2, f"the coordinator {address} cannot be reached within {_CONNECT:g} s: {error}"
        )
    if not joined.wait(_COME - _CONNECT):
        watchdog.end(
            2, f"not all processes have come to {address} within {_COME:g} s: start all of them"
        )


def is_first() -> bool:
    """Whether this is the process that reads and writes the work directory."""
    return jax.process_index() == 0


class Talk:
    """What one thread of each process says to those of the others, in the same order on all.

    name: another one for each thread that talks. Without other processes nobody is asked.
    """

    def __init__(self, name: str) -> None:
        self._keys = (f"dasac/{name}/{number}" for number in itertools.count())

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make` gives on process 0, where alone it is called: anything JSON can hold."""
        if not watchdog.is_on():
            return make()
        key = next(self._keys)
        if is_first():
            value = make()
            store().key_value_set(key, json.dumps(value))
            return value
        return json.loads(store().blocking_key_value_get(key, WEEK))

    def each(self, value: Any) -> list[Any]:
        """The values of all processes, in their order: anything JSON can hold."""
        if not watchdog.is_on():
            return [value]
        key = next(self._keys)
        store().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
        keys = (f"{key}/{process}" for process in range(jax.process_count()))
        return [json.loads(store().blocking_key_value_get(each, WEEK)) for each in keys]

    def together(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives on each process; raises on all where it raises on one.

        That is its own exception there, and RuntimeError with its words on the others.
        """
        if not watchdog.is_on():
            return [work()]
        mine, found, error = None, None, None
        try:
            found = work()
        except Exception as raised:  # whatever it is, the others wait for an answer
            mine, error = raised, f"process {jax.process_index()}: {raised}"
        answers = self.each([found, error])
        if mine is not None:
            raise mine
        for _, theirs in answers:
            if theirs is not None:
                raise RuntimeError(theirs)
        return [value for value, _ in answers]


_MAIN = Talk("main")


def barrier() -> None:
    """Wait for all processes, however long they take."""
    _MAIN.each(None)


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` gives on process 0, where alone it is called: anything that JSON can hold."""
    return _MAIN.from_first(make)


def state_from_first(
    make: Callable[[], tuple[Any, dict[str, Any]]], like: Callable[[], Any]
) -> tuple[Any, dict[str, Any]]:
    """Arrays and facts that `make` gives on process 0, where alone it is called.

    like: gives a pytree of the same shapes and dtypes, where it is called: on the other processes.
    With several the arrays are numpy arrays, bit for bit the same on all.
    """
    if not watchdog.is_on():
        return make()
    made = []

    def facts() -> dict[str, Any]:
        made.extend(make())
        return made[1]

    found = from_first(facts)
    leaves, structure = jax.tree.flatten(made[0] if made else like())
    arrays = [np.asarray(x) if made else np.zeros(x.shape, x.dtype) for x in leaves]
    content = b"".join(array.tobytes() for array in arrays)
    # As whole numbers: JAX broadcasts by a sum, which turns -0.0 into 0.0.
    words = np.frombuffer(content + bytes(-len(content) % 4), np.uint32)
    content = np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes()
    shared, start = [], 0
    for array in arrays:
        piece = np.frombuffer(content, array.dtype, array.size, start)
        shared.append(piece.reshape(array.shape).copy())
        start += array.nbytes
    return jax.tree.unflatten(structure, shared), found


def total(number: np.ndarray | int) -> np.ndarray:
    """The sum of all processes' int64 arrays, the same on all; a process may give just 0."""
    if not watchdog.is_on():
        return np.asarray(number)
    return sum(np.asarray(each, np.int64) for each in _MAIN.each(np.asarray(number).tolist()))


def part_of(count: int, least: int = 1) -> range:
    """This process's part of `count` items: equal blocks in order, none shorter than `least`.

    Only the last ones that have any may have fewer.
    """
    return _part(jax.process_index(), count, least)


def gather(rows: np.ndarray, count: int, least: int = 1) -> np.ndarray:
    """Rows (count, …) of which each process has those of its `part_of(count, least)`."""
    if not watchdog.is_on():
        return rows
    parts = [_part(process, count, least) for process in range(jax.process_count())]
    padded = np.zeros((len(parts[0]), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    # As bytes: JAX has no 64-bit numbers.
    found = np.asarray(multihost_utils.process_allgather(padded.reshape(-1).view(np.uint8)))
    blocks = found.view(rows.dtype).reshape(len(parts), *padded.shape)
    return np.concatenate([block[: len(x)] for block, x in zip(blocks, parts, strict=True)])


def _part(process: int, count: int, least: int) -> range:
    block = max(least, -(-count // jax.process_count()))
    begin = min(process * block, count)
    return range(begin, min(begin + block, count))


def check_alike(text: str, what: str) -> None:
    """Raise UserError on a process whose text is not that of process 0."""
    if from_first(lambda: text) != text:
        raise UserError(
            f"process {jax.process_index()} was started with another {what} than process 0: "
            "give all of them the same"
        )
    barrier()  # nobody begins before all agree


def check_shared(folder: Path) -> None:
    """Raise UserError on a process that does not see the same folder as process 0 does."""
    if not watchdog.is_on():
        return
    token = folder / f"seen-by-all-{os.getpid()}"

    def write() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
        return token.name

    name = from_first(write)
    # Asked for the first time after it was made: no cache can know that it is missing.
    seen = (folder / name).exists()
    total(int(seen))  # all have looked
    if is_first():
        token.unlink(missing_ok=True)
    if not seen:
        raise UserError(
            f"--workdir {folder} of process {jax.process_index()} on {socket.gethostname()} "
            "is not that of process 0: give a folder that all hosts share"
        )
    barrier()  # nobody begins before all agree
