"""The table of published files, and the progress of a download."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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

    Call it after every piece. A terminal shows a bar with the rate and the time left; elsewhere the
    same is printed every ten seconds.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    bar = Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task(name, total=None, start=False)
    printed = time.monotonic()

    def report(received: int, total: int | None) -> None:
        nonlocal printed
        bar.update(task, completed=received, total=total)
        if not bar.tasks[0].started:  # so the rate is that of bytes that have come since then
            bar.start_task(task)
        if not console.is_terminal and time.monotonic() - printed >= _SECONDS_PER_LINE:
            console.print(bar.get_renderable())
            printed = time.monotonic()

    with bar if console.is_terminal else nullcontext():
        yield report


def _mib(size: float) -> str:
    return f"{size / _MIB:.1f} MiB"
