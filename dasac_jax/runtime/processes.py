"""Several processes, on one host or many, that train as one.

JAX connects them. Process 0 alone reads and writes the work directory and sends what it finds there
to the others, so that none of them depends on how fast a shared file system shows it a change.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dasac_jax.errors import EXIT_MISTAKE, UserError
from dasac_jax.runtime import key_value_store, watchdog
from dasac_jax.runtime.messages import Messages

_CONNECT_SECONDS = 60.0  # to reach the coordinator
_START_SECONDS = 300.0  # for all processes to start
# Without a sign of a process for so long, JAX ends all others itself. Our watchdog is faster, and
# says why.
_JAX_HEARTBEAT_SECONDS = 50


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connect to the other processes; before the first use of a device.

    coordinator: HOST:PORT that process 0 is to listen at. With nothing given, JAX looks for a
    cluster (SLURM, Open MPI, Kubernetes, TPU pods …); where it finds none, or num_processes alone
    is given as 1, this process works by itself. Raises UserError for some of the three without the
    others, and for impossible values. The program ends with EXIT_MISTAKE where the coordinator
    cannot be reached within a minute, or not all processes have started within five.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    if given == {"coordinator": None, "num_processes": 1, "process_id": None}:
        return
    _check(given)
    # JAX's preemption service would replace our handler of SIGTERM, which stops in good order.
    jax.config.update("jax_enable_preemption_service", False)
    joined = threading.Event()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        # Connecting happens in C++, and Python's own handler would only run after it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_limit_waiting, args=(joined, coordinator), daemon=True).start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            # Later than _limit_waiting, which ends with a message.
            initialization_timeout=int(2 * _START_SECONDS),
            heartbeat_timeout_seconds=_JAX_HEARTBEAT_SECONDS,
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
    """Raise UserError for flags that are incomplete or impossible."""
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
    """Raise UserError where process 0 cannot listen at the port; JAX 0.10 would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator: port {port} is not free ({error.strerror}): choose another one"
            ) from error


def _limit_waiting(joined: threading.Event, coordinator: str | None) -> None:
    """End this process if the others do not start in time; JAX would abort with a stack trace."""
    if joined.wait(_CONNECT_SECONDS):
        return
    address = coordinator or key_value_store.coordinator()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        watchdog.end(
            EXIT_MISTAKE,
            f"the coordinator {address} cannot be reached within {_CONNECT_SECONDS:g} s: {error}",
        )
    if not joined.wait(_START_SECONDS - _CONNECT_SECONDS):
        watchdog.end(
            EXIT_MISTAKE,
            f"not all processes have come to {address} within {_START_SECONDS:g} s: "
            "start all of them",
        )


def is_first() -> bool:
    """Whether this is the process that reads and writes the work directory."""
    return jax.process_index() == 0


_MAIN = Messages("main")  # of the main threads


def barrier() -> None:
    """Wait for all processes, however long they take."""
    _MAIN.from_all(None)


def from_first(make: Callable[[], Any]) -> Any:
    """The result of `make`, which is called on process 0 alone: anything that JSON can hold."""
    return _MAIN.from_first(make)


def state_from_first(
    make: Callable[[], tuple[Any, dict[str, Any]]], like: Callable[[], Any]
) -> tuple[Any, dict[str, Any]]:
    """The state and metadata that `make` returns, which is called on process 0 alone.

    like: returns a pytree of the same shapes and dtypes; called on the other processes alone.
    With several processes the arrays are numpy arrays, bit for bit the same on all.
    """
    if not watchdog.is_on():
        return make()
    made = []

    def make_metadata() -> dict[str, Any]:
        made.extend(make())
        return made[1]

    metadata = from_first(make_metadata)
    leaves, structure = jax.tree.flatten(made[0] if made else like())
    arrays = [np.asarray(x) if made else np.zeros(x.shape, x.dtype) for x in leaves]
    content = b"".join(array.tobytes() for array in arrays)
    # Sent as integers: JAX broadcasts by adding zeros, which would turn -0.0 into 0.0.
    words = np.frombuffer(content + bytes(-len(content) % 4), np.uint32)
    content = np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes()
    shared, start = [], 0
    for array in arrays:
        piece = np.frombuffer(content, array.dtype, array.size, start)
        shared.append(piece.reshape(array.shape).copy())
        start += array.nbytes
    return jax.tree.unflatten(structure, shared), metadata


def total(number: np.ndarray | int) -> np.ndarray:
    """The sum of all processes' int64 arrays, the same on all; a process may give just 0."""
    if not watchdog.is_on():
        return np.asarray(number)
    numbers = _MAIN.from_all(np.asarray(number).tolist())
    return sum(np.asarray(each, np.int64) for each in numbers)


def part_of(count: int, least: int = 1) -> range:
    """This process's part of `count` items, which are divided into equal blocks in order.

    A block has at least `least` items; the last one may have fewer, and processes after that none.
    """
    return _part(jax.process_index(), count, least)


def gather(rows: np.ndarray, count: int, least: int = 1) -> np.ndarray:
    """All rows (count, …), of which each process gives those of its `part_of(count, least)`."""
    if not watchdog.is_on():
        return rows
    parts = [_part(process, count, least) for process in range(jax.process_count())]
    padded = np.zeros((len(parts[0]), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    # Sent as bytes: JAX by default has no 64-bit numbers.
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
    barrier()  # no process goes on while another may still raise


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
    # The first look-up comes after the file was made, so a network file system cannot answer it
    # from a cached "not found".
    seen = (folder / name).exists()
    barrier()  # all have looked, so the file can go
    if is_first():
        token.unlink(missing_ok=True)
    if not seen:
        raise UserError(
            f"--workdir {folder} of process {jax.process_index()} on {socket.gethostname()} "
            "is not that of process 0: give a folder that all hosts share"
        )
    barrier()  # no process goes on while another may still raise
