"""Requests to stop: signals, time, other processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dasac_jax.data.demo import render
from dasac_jax.runtime import logs, stop_requests


@pytest.fixture(autouse=True)
def foreground():
    """Handle Ctrl-C as in a terminal: if the tests run in the background, it may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_without_a_request_nothing_stops():
    stop_requests.check()
    with stop_requests.on_signals(), stop_requests.time_limit(0):
        stop_requests.check()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_a_request(name, capfd):
    before = signal.getsignal(signal.Signals[name])
    with stop_requests.on_signals():
        os.kill(os.getpid(), signal.Signals[name])
        with pytest.raises(stop_requests.Stopped, match=f"^{name}$"):
            stop_requests.check()
        with pytest.raises(stop_requests.Stopped):  # and every later check
            stop_requests.check()
    assert f"{name}: finishing the step" in capfd.readouterr().err
    assert signal.getsignal(signal.Signals[name]) == before
    stop_requests.check()


def test_ctrl_c_twice_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), stop_requests.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(stop_requests.Stopped, match="SIGTERM"):
            stop_requests.check()
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_python_drops_is_raised_again(monkeypatch):
    class Interrupted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable))
    with stop_requests.interrupts():
        stop_requests.check_interrupt()
        Interrupted()
        assert [each.exc_type for each in dropped] == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            stop_requests.check_interrupt()
        with pytest.raises(KeyboardInterrupt), logs.progress("predict", total=3) as update:
            update(1)
    stop_requests.check_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_background_job_ignores_remains_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests.on_signals():
            os.kill(os.getpid(), signal.SIGINT)
            stop_requests.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_time_limit_leaves_time_to_save(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for minutes, seconds in ((10, 540), (24 * 60, 24 * 3600 - 300)):
        clock[0] = 1000.0
        with stop_requests.time_limit(minutes):
            clock[0] = 1000.0 + seconds - 1
            stop_requests.check()
            clock[0] = 1000.0 + seconds
            with pytest.raises(
                stop_requests.Stopped, match=f"^the time limit of {minutes} minutes$"
            ):
                stop_requests.check()
        stop_requests.check()


def test_processes_agree():
    reasons = []
    with stop_requests.agreeing(lambda reason: reasons.append(reason) or "another process"):
        with pytest.raises(stop_requests.Stopped, match=r"^another process$"):
            stop_requests.check()
        with stop_requests.agreeing(lambda reason: None):
            stop_requests.check()
    assert reasons == [None]


def test_a_signal_that_ends_the_renderers_before_they_ignore_it_is_a_request(tmp_path, monkeypatch):
    class Ended(subprocess.Popen):
        def __init__(self, command, env):
            code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
            super().__init__([sys.executable, "-c", code], env=env)

        def wait(self, timeout=None):
            os.kill(os.getpid(), signal.SIGTERM)  # noticed when all of them have ended
            return super().wait(timeout)

    monkeypatch.setattr(render.subprocess, "Popen", Ended)
    with stop_requests.on_signals(), pytest.raises(stop_requests.Stopped, match="SIGTERM"):
        render.render(tmp_path, num_source=2, num_train=2, workers=2)


def test_rendering_stops_and_leaves_no_renderer(tmp_path):
    root = str(tmp_path / "data")
    code = (
        "import os, signal, threading\n"
        "from dasac_jax.runtime import stop_requests\n"
        "from dasac_jax.data.demo import render\n"
        # To the whole group of processes, as terminals and clusters send it.
        "threading.Timer(1.5, lambda: os.killpg(0, signal.SIGTERM)).start()\n"
        "with stop_requests.on_signals():\n"
        "    try:\n"
        f"        render.render({root!r}, num_source=500, num_train=50)\n"
        "    except stop_requests.Stopped as reason:\n"
        "        print(reason)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "SIGTERM\n"), ended.stderr
    count = len(list(tmp_path.rglob("*.png")))
    assert count < 550 and not (tmp_path / "data" / render.MARKER).exists()
    time.sleep(1)
    assert len(list(tmp_path.rglob("*.png"))) == count
