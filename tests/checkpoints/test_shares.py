"""Checkpoints that several processes write; here threads, with a store as JAX's between them.

Real processes write and read them in tests/runtime/test_processes.py.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from dasac_jax.checkpoints import orbax_files, shares
from dasac_jax.checkpoints.writer import Job
from dasac_jax.runtime import processes, watchdog

PROCESSES = 3


class Store:
    """The functions of runtime.key_value_store, between threads."""

    def __init__(self):
        self._values, self._changed = {}, threading.Condition()

    def put(self, key, value):
        with self._changed:
            assert key not in self._values
            self._values[key] = value
            self._changed.notify_all()

    def wait_for(self, key):
        with self._changed:
            assert self._changed.wait_for(lambda: key in self._values, timeout=20), key
            return self._values[key]


@pytest.fixture
def in_processes(monkeypatch):
    """run(work): the results of work(i) or what it raises, in a thread for each process."""
    me, store = threading.local(), Store()
    monkeypatch.setattr(jax, "process_count", lambda: PROCESSES)
    monkeypatch.setattr(jax, "process_index", lambda: me.index)
    monkeypatch.setattr(watchdog, "is_on", lambda: True)
    monkeypatch.setattr(processes, "key_value_store", store)

    def run(work):
        def one(index):
            me.index = index
            try:
                return work(index)
            except Exception as error:
                return error

        with ThreadPoolExecutor(PROCESSES) as threads:
            return list(threads.map(one, range(PROCESSES)))

    return run


@pytest.fixture
def full(monkeypatch):
    """Files in place of orbax's; what is put into the set cannot be written by that process."""
    unable = set()

    def write(path, arrays, metadata):
        path.mkdir()
        (path / "arrays").write_text(json.dumps(sorted(arrays)))
        if jax.process_index() in unable:
            raise OSError("no space left on device")
        (path / "metadata").write_text(json.dumps(metadata))

    monkeypatch.setattr(orbax_files, "write", write)
    return unable


def arrays(*sizes):
    return {f"w{i}": np.zeros(size, np.float32) for i, size in enumerate(sizes)}


def saving(folder: Path, step: int):
    """Every process saves its share of a step, with a way of its own to talk."""
    leaves = arrays(5, 4, 3, 2, 1)
    talks = [processes.Messages(f"test/{step}") for _ in range(PROCESSES)]

    def work(index):
        job = Job(step, {name: leaves[name] for name in shares.own_names(leaves)}, {"a": 1})
        shares.write(folder, job, 2, talks[index])

    return work


@pytest.mark.parametrize("sizes", [(5, 4, 3, 2, 1), (1, 1, 1), (7,), (9, 1, 1, 1, 1)])
def test_every_array_has_one_writer_and_the_bytes_are_shared(sizes, in_processes):
    leaves = arrays(*sizes)
    found = in_processes(lambda _: shares.own_names(leaves))
    assert sorted(name for share in found for name in share) == sorted(leaves)
    bytes_of = [sum(leaves[name].nbytes for name in share) for share in found]
    assert max(bytes_of) <= sum(bytes_of) / PROCESSES + 4 * max(sizes)
    written = shares.count(leaves)
    assert [bool(share) for share in found] == [i < written for i in range(PROCESSES)]


def test_all_shares_appear_as_one_step(in_processes, full, tmp_path):
    assert in_processes(saving(tmp_path, 5)) == [None] * PROCESSES
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
    found = []
    for share in shares.folders(tmp_path / "5", PROCESSES):
        found += json.loads((share / "arrays").read_text())
        assert json.loads((share / "metadata").read_text())["a"] == 1
    assert sorted(found) == ["w0", "w1", "w2", "w3", "w4"]
    checksums = json.loads((tmp_path / "5" / "files.json").read_text())["files"]
    assert {f"process_{i}/arrays" for i in (1, 2)} < set(checksums)


@pytest.mark.parametrize("process", range(PROCESSES))
def test_where_one_cannot_write_nobody_has_and_all_hear_why(process, in_processes, full, tmp_path):
    in_processes(saving(tmp_path, 5))
    full.add(process)
    errors = in_processes(saving(tmp_path, 6))
    assert isinstance(errors[process], OSError)
    for other in {0, 1, 2} - {process}:
        assert str(errors[other]) == f"process {process}: no space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
    full.clear()
    assert in_processes(saving(tmp_path, 7)) == [None] * PROCESSES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "7"]


def test_a_mistake_of_one_is_raised_by_all(in_processes):
    talk = [processes.Messages("test") for _ in range(PROCESSES)]

    def work(index):
        return talk[index].together(lambda: 1 // index)

    first, *others = in_processes(work)
    assert isinstance(first, ZeroDivisionError)
    assert {str(error) for error in others} == {f"process 0: {first}"}
