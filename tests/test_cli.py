"""Exit codes of the commands with plain arguments."""

import os
import signal
import subprocess
import sys

import pytest

from dasac_jax import cli
from dasac_jax.errors import UserError


def failing(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (UserError("a.png: no image"), "error: a.png: no image\n"),
        (
            PermissionError(13, "Permission denied", "/home/someone/run"),
            "error: /home/someone/run: Permission denied: see to its permissions, or choose "
            "another\n",
        ),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(error, printed, capsys):
    assert cli.code_of(failing(error), "nothing was written") == 2
    assert capsys.readouterr().err == printed


def test_ctrl_c_ends_with_code_130(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = cli.code_of(lambda: os.kill(os.getpid(), signal.SIGINT), "nothing was written")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == 130 and capsys.readouterr().err == "stopped; nothing was written\n"


def test_other_errors_are_defects_and_not_hidden():
    with pytest.raises(FileNotFoundError):
        cli.code_of(failing(FileNotFoundError("x")), "nothing was written")


@pytest.mark.parametrize(("code", "printed"), [(130, "said\n"), (2, "said\nat the end\n")])
def test_after_ctrl_c_the_process_ends_at_once(code, printed):
    """Nothing of the interpreter's end is waited for: XLA's threads would crash in it."""
    program = (
        "import atexit; from dasac_jax import cli; atexit.register(print, 'at the end'); "
        f"print('said'); cli.leave({code})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (code, printed)
