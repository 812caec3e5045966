"""What downloads show: the table of published files, and how far one is."""

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

_PLAIN_WIDTH = 160  # columns where the output is no terminal
_NARROWEST = 100  # columns of the table; narrower terminals wrap it themselves
_LINE_EVERY = 10.0  # seconds
_MIB = 2**20


def open_console() -> Console:
    """Standard output, in plain wide lines unless it is a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def show(files: Sequence[Published], folder: Path, console: Console) -> None:
    """Print all published files and what of them lies in `folder`, whose sums are computed."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "what", "size", "state", "checksum"):
        table.add_column(title, no_wrap=title != "checksum")
    with console.status("computing checksums"):
        for file in files:
            size, state = _state(file, folder / file.name)
            # On narrow terminals the sums lose digits; wrapped they would hide the rest.
            checksum = Text(file.checksum, no_wrap=True, overflow="ellipsis")
            table.add_row(file.name, file.description, size, state, checksum)
    width = max(console.width, _NARROWEST)
    Console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)
    console.print(
        f"State is that in {folder}. Sizes of files that are not there are rounded, as published.",
        markup=False,
        highlight=False,
    )


def _state(file: Published, path: Path) -> tuple[str, str]:
    """Size and state of a file, in words."""
    part = path.with_name(path.name + ".part")
    if path.exists():
        sums = digests(path)
        states = {
            True: "verified",
            None: "there",
            False: "WRONG",
        }
        return _mib(sums.size), states[file.matches(sums)]
    size = file.size or "-"
    return size, f"{_mib(part.stat().st_size)} of it" if part.exists() else "-"


@contextmanager
def following(name: str, console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """Show a transfer. Yields report(bytes there, bytes in all or None): call it often.

    A terminal gets a bar, everything else a line every ten seconds, both with rate and time left.
    """
    if not console.is_terminal:
        yield _Lines(name, console).report
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    bar = Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task(name, total=None, start=False)
    with bar:

        def report(there: int, total: int | None) -> None:
            if not bar.tasks[0].started:
                # Bytes of an earlier run would count for the rate.
                bar.update(task, completed=there, total=total)
                bar.start_task(task)
            bar.update(task, completed=there, total=total)

        yield report


class _Lines:
    """Progress as lines, each with the rate since the one before."""

    def __init__(self, name: str, console: Console) -> None:
        self.name, self.console = name, console
        self.time: float | None = None
        self.there = 0

    def report(self, there: int, total: int | None) -> None:
        now = time.monotonic()
        if self.time is None or there < self.there:  # the beginning, also of another attempt
            self.time, self.there = now, there
        elif now - self.time >= _LINE_EVERY:
            rate = (there - self.there) / (now - self.time)
            self.time, self.there = now, there
            self.console.print(f"{self.name}: {progress_line(there, total, rate)}", markup=False)


def progress_line(there: int, total: int | None, rate: float) -> str:
    """As in "45 %, 152.0 MiB of 336.0 MiB, 3.2 MiB/s, eta 0:00:58"; rate in bytes a second."""
    speed = f"{_mib(rate)}/s"
    if total is None:
        return f"{_mib(there)}, {speed}"
    left = str(datetime.timedelta(seconds=round((total - there) / rate))) if rate else "unknown"
    return f"{there * 100 // total} %, {_mib(there)} of {_mib(total)}, {speed}, eta {left}"


def _mib(size: float) -> str:
    return f"{size / _MIB:.1f} MiB"
