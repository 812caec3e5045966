"""Commands in processes of their own stop when the one that began them is asked to."""

import os
import signal
import sys
import threading

import pytest

from dasac_jax.runtime.children import children

# Says when it listens, and ends with the number of the signal that it then gets.
LISTENS = """
import signal, sys, time
def end(number, frame):
    sys.exit(int(number))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
open(sys.argv[1], "w").close()
while True:
    time.sleep(0.01)
"""


def test_ends_are_told():
    with children() as running:
        assert running.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7
        killed = "import os; os.kill(os.getpid(), 9)"
        assert running.run([sys.executable, "-c", killed]) == -signal.SIGKILL
        assert running.stop is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_the_command(number, tmp_path):
    os.mkfifo(tmp_path / "ready")

    def ask():
        (tmp_path / "ready").read_bytes()  # waits until the command has opened it
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with children() as running:
            code = running.run([sys.executable, "-c", LISTENS, str(tmp_path / "ready")])
            assert (code, running.stop) == (int(number), number)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_a_request_before_a_command_stops_it_too():
    with children() as running:
        os.kill(os.getpid(), signal.SIGTERM)
        assert running.stop is signal.SIGTERM
        sleeps = "import time; time.sleep(60)"
        assert running.run([sys.executable, "-c", sleeps]) == -signal.SIGTERM
