"""The table of files on narrow terminals, and progress on and off a terminal."""

import io

from rich.console import Console

from dasac_jax.interop.downloads import display
from dasac_jax.interop.published import PUBLISHED


def test_a_narrow_terminal_loses_digits_only(tmp_path):
    screen = io.StringIO()
    display.print_table(PUBLISHED, tmp_path, Console(file=screen, width=60, force_terminal=True))
    for file in PUBLISHED:
        assert file.description in screen.getvalue() and file.name in screen.getvalue()


def test_progress_tells_share_rate_and_time():
    assert display.progress_line(2**20, 4 * 2**20, 2**19) == (
        "25 %, 1.0 MiB of 4.0 MiB, 0.5 MiB/s, eta 0:00:06"
    )
    assert display.progress_line(2**20, None, 2**19) == "1.0 MiB, 0.5 MiB/s"
    assert display.progress_line(0, 2**20, 0).endswith("eta unknown")


def test_progress_is_lines_without_a_terminal(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 25.0, 30.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    screen = io.StringIO()
    with display.show_progress("file", Console(file=screen, width=160)) as report:
        for there in (1, 2, 3, 4, 5, 0, 1):  # then it starts anew
            report(there * 2**20, 8 * 2**20)
    assert screen.getvalue().splitlines() == [
        "file: 37 %, 3.0 MiB of 8.0 MiB, 0.2 MiB/s, eta 0:00:25",
        "file: 62 %, 5.0 MiB of 8.0 MiB, 0.2 MiB/s, eta 0:00:15",
    ]


def test_progress_is_a_bar_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=True)
    with display.show_progress("a file", console) as report:
        report(2**20, 2**21)
        report(2**21, 2**21)
    assert "a file" in screen.getvalue() and "2.0/2.0 MiB" in screen.getvalue()
