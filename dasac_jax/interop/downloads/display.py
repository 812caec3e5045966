"""The table of published files, and the progress of a download."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from dasac_jax.interop.published import Published, digests

_PLAIN_WIDTH = 160  # characters in a line where the output is no terminal
_LEAST_WIDTH = 100  # characters in a line of the table; narrower terminals break the lines
_SECONDS_PER_LINE = 10.0
_MIB = 2**20


def open_console() -> Console:
    """A console on standard output; plain lines of 160 characters unless it is a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def print_table(files: Sequence[Published], folder: Path, console: Console) -> None:
    """Print all published files with their state in `folder`; checksums are computed for it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "what", "size", "state", "checksum"):
        table.add_column(title, no_wrap=title != "checksum")
    with console.status("computing checksums"):
        for file in files:
            size, state = _state(file, folder / file.name)
            # Narrow terminals show fewer digits of a checksum, so that each file keeps one line.
            checksum = Text(file.checksum, no_wrap=True, overflow="ellipsis")
            table.add_row(file.name, file.description, size, state, checksum)
    width = max(console.width, _LEAST_WIDTH)
    Console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)
    console.print(
        f"State is that in {folder}. Sizes of files that are not there are rounded, as published.",
        markup=False,
        highlight=False,
    )


def _state(file: Published, path: Path) -> tuple[str, str]:
    """The size and the state of a file as the table shows them."""
    part = path.with_name(path.name + ".part")
    if path.exists():
        found = digests(path)
        states = {True: "verified", None: "there", False: "WRONG"}
        return _mib(found.size), states[file.matches(found)]
    size = file.size or "-"
    return size, f"{_mib(part.stat().st_size)} of it" if part.exists() else "-"


@contextmanager
def show_progress(name: str, console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a transfer. Yields a function report(bytes received, total or None).

    Call it after every piece. A terminal shows a bar; elsewhere a line is printed every ten
    seconds. Both have the rate and the time left.
    """
    if not console.is_terminal:
        yield _Lines(name, console).report
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    bar = Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task(name, total=None, start=False)
    with bar:

        def report(received: int, total: int | None) -> None:
            if not bar.tasks[0].started:
                # The bar takes the rate from its start on: earlier bytes must not count.
                bar.update(task, completed=received, total=total)
                bar.start_task(task)
            bar.update(task, completed=received, total=total)

        yield report


class _Lines:
    """Prints progress in lines, each with the rate since the line before."""

    def __init__(self, name: str, console: Console) -> None:
        self.name, self.console = name, console
        self.time: float | None = None
        self.received = 0

    def report(self, received: int, total: int | None) -> None:
        now = time.monotonic()
        if self.time is None or received < self.received:  # the transfer starts, or starts anew
            self.time, self.received = now, received
        elif now - self.time >= _SECONDS_PER_LINE:
            rate = (received - self.received) / (now - self.time)
            self.time, self.received = now, received
            line = progress_line(received, total, rate)
            self.console.print(f"{self.name}: {line}", markup=False)


def progress_line(received: int, total: int | None, rate: float) -> str:
    """As in "45 %, 152.0 MiB of 336.0 MiB, 3.2 MiB/s, eta 0:00:58".

    received and total are in bytes, rate in bytes per second.
    """
    speed = f"{_mib(rate)}/s"
    if total is None:
        return f"{_mib(received)}, {speed}"
    left = str(datetime.timedelta(seconds=round((total - received) / rate))) if rate else "unknown"
    return f"{received * 100 // total} %, {_mib(received)} of {_mib(total)}, {speed}, eta {left}"


def _mib(size: float) -> str:
    return f"{size / _MIB:.1f} MiB"
