"""The table of files on narrow terminals, and progress on and off a terminal."""

import io
import re

from rich.console import Console

from dasac_jax.interop.downloads import display
from dasac_jax.interop.published import PUBLISHED


def test_a_narrow_terminal_loses_digits_only(tmp_path):
    screen = io.StringIO()
    display.print_table(PUBLISHED, tmp_path, Console(file=screen, width=60, force_terminal=True))
    for file in PUBLISHED:
        assert file.description in screen.getvalue() and file.name in screen.getvalue()


def test_progress_is_lines_without_a_terminal(monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    screen = io.StringIO()
    with display.show_progress("file", Console(file=screen, width=160)) as report:
        for received in range(9):
            report(received * 2**20, 8 * 2**20)
    lines = screen.getvalue().splitlines()
    assert 2 <= len(lines) < 9
    assert re.fullmatch(r"file .* 7\.0/8\.0 MiB \S+ .?B/s 0:00:\d\d", lines[-1])


def test_progress_is_a_bar_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=True)
    with display.show_progress("a file", console) as report:
        report(2**20, 2**21)
        report(2**21, 2**21)
    assert "a file" in screen.getvalue() and "2.0/2.0 MiB" in screen.getvalue()
