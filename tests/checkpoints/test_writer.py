"""Writing goes on in the background; what fails is told and kept, and the order is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.checkpoints.writer import Job, Manager, reason
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState

ROOT = Path(__file__).parents[2]


class Disk:
    """What was written, in its order; full and gate can be set."""

    def __init__(self):
        self.written: list[tuple[str, int]] = []
        self.full: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def manager(self, name: str) -> Manager:
        def write(job: Job) -> None:
            assert self.gate.wait(30)
            if name in self.full:
                raise ValueError(f"{name} is full")
            self.written.append((name, job.step))

        return Manager(Path("/") / name, write)


def _job(step: int) -> Job:
    return Job(step, {"x": np.zeros(1)}, {})


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_starting_does_not_wait_for_the_writing(disk):
    disk.gate.clear()
    manager = disk.manager("newest")
    manager.start(_job(1))
    assert disk.written == []
    disk.gate.set()
    assert manager.wait() is None
    assert disk.written == [("newest", 1)]


def test_one_is_written_after_the_other(disk):
    manager = disk.manager("newest")
    for step in range(5):
        manager.start(_job(step))
    manager.wait()
    assert disk.written == [("newest", step) for step in range(5)]


def test_a_failure_is_told_and_forgotten_with_the_next_success(disk, caplog):
    manager = disk.manager("newest")
    disk.full = {"newest"}
    manager.start(_job(1))
    assert manager.wait() == (1, "newest is full")
    assert "cannot write step 1 to /newest: newest is full; going on" in caplog.text
    disk.full = set()
    manager.start(_job(2))
    assert manager.wait() is None
    assert disk.written == [("newest", 2)]


def test_the_newest_waits_for_the_best(disk):
    best, newest = disk.manager("best"), disk.manager("newest")
    disk.gate.clear()
    best.start(_job(1))
    newest.start(_job(1), after=best)
    threading.Timer(0.05, disk.gate.set).start()
    newest.wait()
    assert disk.written == [("best", 1), ("newest", 1)]


def test_the_newest_is_not_written_without_the_best_it_tells_of(disk, caplog):
    best, newest = disk.manager("best"), disk.manager("newest")
    disk.full = {"best"}
    best.start(_job(1))
    newest.start(_job(2), after=best)
    assert newest.wait() == (2, "/best could not be written before")
    assert disk.written == []
    disk.full = set()
    newest.start(_job(3), after=best)
    assert newest.wait() is None and best.wait() is None
    assert disk.written == [("best", 1), ("newest", 3)]


def test_a_newer_best_takes_the_place_of_one_that_failed(disk):
    best = disk.manager("best")
    disk.full = {"best"}
    best.start(_job(1))
    best.wait()
    disk.full = set()
    best.start(_job(2))
    newest = disk.manager("newest")
    newest.start(_job(3), after=best)
    newest.wait()
    assert disk.written == [("best", 2), ("newest", 3)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("Error writing: No space [spec='{\"a\": true}'] [os_error_code='28']"),
         "No space left on device"),
        (OSError(28, "No space left on device", "/x"), "[Errno 28] No space left on device: '/x'"),
        (RuntimeError("one\ntwo"), "one"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_reasons_are_one_line(error, words):
    assert reason(error) == words


_FULL = """
import resource, sys
from types import SimpleNamespace
import jax
import numpy as np
from dasac_jax.checkpoints import store

jax.tree_util.register_pytree_with_keys(
    SimpleNamespace,
    lambda s: ([(jax.tree_util.GetAttrKey(k), v) for k, v in sorted(vars(s).items())], None),
    lambda keys, leaves: None,
)

def state(step):
    rng = np.random.default_rng(step)
    arrays = {str(i): rng.random(30_000, np.float32) for i in range(20)}
    return SimpleNamespace(params=arrays, step=np.int32(step))

manager = store.open_manager(sys.argv[1])
store.save(manager, state(1), metadata={})
store.latest_step(manager)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, unlimited[1]))
store.save(manager, state(2), metadata={})
print(store.latest_step(manager), store.read(sys.argv[1])[0]["step"])
if sys.argv[2] == "stays full":
    store.finish(manager)
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
store.save(manager, state(3), metadata={})
store.finish(manager)
"""


@pytest.mark.parametrize("then", ["stays full", "has room"])
def test_a_full_disk(tmp_path, then):
    """Files may not grow: as on a full disk each write fails, and no privileges are needed."""
    folder = tmp_path / "checkpoints"
    ended = subprocess.run(
        [sys.executable, "-c", _FULL, str(folder), then],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.stdout == "1 1\n", ended.stderr
    warned = f"cannot write step 2 to {folder}: File too large"
    names = sorted(path.name for path in folder.iterdir())
    told = [line for line in ended.stderr.splitlines() if "cannot write" in line]
    assert told[0].endswith(f"{warned}; going on without, earlier checkpoints are kept")
    if then == "has room":
        assert (ended.returncode, names) == (0, ["1", "3"])
        assert len(told) == 1 and "Traceback" not in ended.stderr
    else:
        assert (ended.returncode, names) == (1, ["1"])
        assert f"UserError: {warned}; earlier checkpoints are kept: make room" in ended.stderr
    assert store.read(folder)[0]["step"] == int(names[-1])


def test_a_folder_that_cannot_be_written_any_more_is_told(tmp_path, caplog):
    manager = store.open_manager(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").touch()
    state = TrainState({}, {}, {}, np.zeros(2), (), np.int32(1), np.uint32(0))
    store.save(manager, state, metadata={})
    with pytest.raises(UserError, match=r"cannot write step 1 to .*checkpoints: "):
        store.finish(manager)
    assert "cannot write step 1" in caplog.text
