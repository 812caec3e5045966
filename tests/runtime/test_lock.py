"""One process at a time in a work directory."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from dasac_jax.errors import UserError
from dasac_jax.runtime import lock

HOLD = """
import sys, time
from pathlib import Path
from dasac_jax.runtime import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_dies(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError) as caught, lock.held(folder):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    text = str(caught.value)
    assert f"{folder} is in use by process {other.pid} on {socket.gethostname()}: " in text
    assert "another --workdir" in text and "\n" not in text
    with lock.held(folder):
        assert f"process {os.getpid()} " in (folder / lock.LOCK_FILE).read_text()
    with lock.held(folder):  # again, after it was released
        pass


def test_other_folders_are_locked_while_they_are_written_to_and_left_clean(tmp_path):
    folder = tmp_path / "out"
    with lock.held(folder, flag="--output"):
        refused = pytest.raises(
            UserError, match=rf"--output .*out is in use by process {os.getpid()} "
        )
        with refused, lock.held(folder, flag="--output"):
            pass
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    flock, path = fcntl.flock, tmp_path / ".lock"

    def removed_first(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        path.touch()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with lock.held(tmp_path, flag="--output"):
        assert "process" in path.read_text()


def test_where_the_file_system_has_no_locks_there_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.held(tmp_path):
        pass
    assert f"{tmp_path}/lock cannot be locked (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(UserError, match=r"cannot be written .*choose another")
    with refused, lock.held(tmp_path / "file" / "run"):
        pass


def test_who_may_wait_has_its_turn_when_the_folder_is_free(tmp_path):
    order, asks = [], threading.Event()

    def work():
        asks.set()
        with lock.held(tmp_path, wait=True):
            order.append("second")

    with lock.held(tmp_path, wait=True):
        thread = threading.Thread(target=work)
        thread.start()
        asks.wait()
        with (
            pytest.raises(UserError, match="in use by process"),
            lock.held(tmp_path, flag="--root"),
        ):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []
