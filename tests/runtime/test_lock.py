"""One process at a time in a work directory."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

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
