"""The lines of a run in train.log and on the terminal, and its progress bar."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import absl.logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dasac_jax.errors import UserError
from dasac_jax.files import LOG_FILE
from dasac_jax.runtime import stop_requests

_LOGGER = logging.getLogger("dasac_jax")


class _Terminal(logging.Handler):
    """Prints through rich, so that lines appear above a running bar instead of inside it."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "shown_in_bar", False):
            return
        label = "warning: " if record.levelno >= logging.WARNING else ""
        text = label + record.getMessage()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def quiet_jax() -> None:
    """Keep JAX from reporting which devices there are not, and how processes are connected.

    Its loggers do so at level INFO, which absl.app prints.
    """
    for name in ("jax._src.xla_bridge", "jax._src.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def logging_to(
    workdir: Path | str | None, *, primary: bool = True, console: Console | None = None
) -> Iterator[logging.Logger]:
    """Send the package's log to `workdir`/train.log, which is appended to, and to the terminal.

    workdir: None for the terminal alone. primary: False for all but one of several processes:
    these write no file and print warnings only. console: where to print, by default standard
    output. Yields the logger. Raises UserError if the file cannot be written.
    """
    console = console or Console()
    handlers: list[logging.Handler] = [
        _Terminal(console, logging.INFO if primary else logging.WARNING)
    ]
    if primary and workdir is not None:
        path = Path(workdir) / LOG_FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
            # Where the disk is full, logging would print a traceback for each line. The terminal
            # shows the line all the same, and saving a checkpoint reports the full disk.
            handlers[-1].handleError = lambda record: None
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; choose another --workdir") from error
        handlers[-1].setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
    before = _LOGGER.level, _LOGGER.propagate
    # orbax reports each step of saving through absl's log at level INFO.
    absl.logging.set_verbosity(absl.logging.WARNING)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    for handler in handlers:
        _LOGGER.addHandler(handler)
    try:
        with _failed_saves_in_one_line():
            yield _LOGGER
    finally:
        _LOGGER.setLevel(before[0])
        _LOGGER.propagate = before[1]
        for handler in handlers:
            _LOGGER.removeHandler(handler)
            with suppress(OSError):  # the disk may still be full when the last lines are written
                handler.close()


@contextmanager
def _failed_saves_in_one_line() -> Iterator[None]:
    """Drop the stack traces that go with a save for which the disk has become too full.

    Saving raises the same error, which the package's log has in one line. Besides, orbax logs it
    with a stack trace for each of its threads, and Python prints one for each of TensorStore's
    writes that ends after orbax has closed the event loop which was waiting for it.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def is_news(record: logging.LogRecord) -> bool:
        return "_SignalingThread.run() raised an exception" not in record.getMessage()

    def show(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(is_news)
    sys.unraisablehook = show
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logger.removeFilter(is_news)


@contextmanager
def progress(
    description: str, total: int, initial: int = 0, *, log_every: int = 50
) -> Iterator[Callable[..., None]]:
    """Follow a loop of `total` steps of which `initial` are done.

    Yields update(step, values={}): call it with the number of steps done and scalars by name after
    each step, or after each batch where several are done at once: within a batch there is no rate
    to measure. The values are read on every `log_every`-th and the last step only, so they may be
    arrays still being computed. Those steps, or the first batch that ends behind them, give a line
    in the log; on a terminal a bar shows the same and the log's lines go to the file alone. A line
    has the rate since the line before, the last one that of the whole loop, and none has a rate
    where nothing was done yet. `update` raises KeyboardInterrupt after a Ctrl-C that got lost
    (`stop_requests.interrupts`).
    """
    console = _console()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
    )
    task = bar.add_task(description, total=total, completed=initial, status="")
    began = last_time = time.monotonic()
    last_step = initial

    def update(step: int, values: Mapping[str, Any] | None = None) -> None:
        nonlocal last_step, last_time
        stop_requests.check_interrupt()
        passed = step // log_every > last_step // log_every
        if not passed and step % log_every and step != total:
            bar.update(task, completed=step)
            return
        # Reading the values waits until the device has computed them. The clock is read after
        # that: before, it would measure how fast steps are started.
        numbers = {name: float(value) for name, value in (values or {}).items()}
        now = time.monotonic()
        if step == total:  # the few steps since the line before would give a rate of chance
            rate = _rate(step - initial, now - began)
        else:
            rate = _rate(step - last_step, now - last_time)
        status = _status(rate, total - step, numbers)
        last_step, last_time = step, now
        bar.update(task, completed=step, status=status)
        _LOGGER.info(
            "%s step %d/%d  %s",
            description,
            step,
            total,
            status,
            extra={"shown_in_bar": console.is_terminal},
        )

    with bar if console.is_terminal else nullcontext():
        yield update


def _console() -> Console:
    """The console that the log prints to, or a new one where no log is open."""
    for handler in _LOGGER.handlers:
        if isinstance(handler, _Terminal):
            return handler.console
    return Console(quiet=True)


def _rate(done: int, seconds: float) -> float | None:
    return done / seconds if done > 0 and seconds > 0 else None


def _status(rate: float | None, left: int, values: Mapping[str, float]) -> str:
    """Rate, time to go and values, as in "3.9 it/s  eta 0:02:03  loss_source 1.234".

    Where there is no rate yet, the values alone.
    """
    times = []
    if rate:
        times = [f"{rate:.3g} it/s", f"eta {datetime.timedelta(seconds=round(left / rate))}"]
    return "  ".join([*times, *(f"{name} {value:.4g}" for name, value in values.items())])
