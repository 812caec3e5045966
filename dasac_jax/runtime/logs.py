"""What a run tells: lines in train.log and on the terminal, a progress bar, TensorBoard."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import absl.logging
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dasac_jax.errors import UserError

LOG_FILE = "train.log"
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
            # A full disk: the terminal has the line too, and whoever saves tells of it.
            handlers[-1].handleError = lambda record: None
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; choose another --workdir") from error
        handlers[-1].setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
    before = _LOGGER.level, _LOGGER.propagate
    # Checkpointing reports each of its steps through absl at level INFO.
    absl.logging.set_verbosity(absl.logging.WARNING)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    for handler in handlers:
        _LOGGER.addHandler(handler)
    try:
        yield _LOGGER
    finally:
        _LOGGER.setLevel(before[0])
        _LOGGER.propagate = before[1]
        for handler in handlers:
            _LOGGER.removeHandler(handler)
            with suppress(OSError):  # a full disk still, for the last lines
                handler.close()


@contextmanager
def progress(
    description: str, total: int, initial: int = 0, *, log_every: int = 50
) -> Iterator[Callable[..., None]]:
    """Follow a loop of `total` steps of which `initial` are done.

    Yields update(step, values={}): call it after each step with the number of steps done and
    scalars by name. They are read on every `log_every`-th and the last step only, so they may be
    arrays still being computed. Those steps give a line in the log; on a terminal a bar shows
    the same and the log's lines go to the file alone.
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
    last_step, last_time = initial, time.monotonic()

    def update(step: int, values: Mapping[str, Any] | None = None) -> None:
        nonlocal last_step, last_time
        if step % log_every and step != total:
            bar.update(task, completed=step)
            return
        # Reading the values waits for the device; only then the clock tells the true rate.
        numbers = {name: float(value) for name, value in (values or {}).items()}
        now = time.monotonic()
        status = _status(step - last_step, now - last_time, total - step, numbers)
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


def _status(done: int, seconds: float, left: int, values: Mapping[str, float]) -> str:
    """Rate, time to go and values, as in "3.9 it/s  eta 0:02:03  loss_source 1.234"."""
    rate = done / seconds if done > 0 and seconds > 0 else 0.0
    eta = str(datetime.timedelta(seconds=round(left / rate))) if rate else "unknown"
    numbers = [f"{name} {value:.4g}" for name, value in values.items()]
    return "  ".join([f"{rate:.3g} it/s", f"eta {eta}", *numbers])


class Scalars:
    """TensorBoard event files: `with Scalars(folder) as scalars: scalars.add_scalars(...)`.

    folder is made where missing; a restarted run adds a file to those that are there, and so does
    one whose file could not be written any more (a full disk). With enabled=False (all but one of
    several processes) nothing is written.
    """

    def __init__(self, folder: Path | str, *, enabled: bool = True) -> None:
        self._folder, self._enabled = str(folder), enabled
        self._open()

    def _open(self) -> None:
        try:
            self._writer = _tensorboard().SummaryWriter(self._folder, write_to_disk=self._enabled)
        except OSError as error:
            raise UserError(f"cannot write TensorBoard files to {self._folder}: {error}") from error
        if self._enabled:
            events = self._writer.file_writer.event_writer
            self._records = _Records(events._ev_writer)
            events._ev_writer = events._worker._record_writer = self._records

    def _mend(self) -> None:
        """Begin another file where this one is broken."""
        if self._enabled and self._records.error is not None:
            _LOGGER.warning(
                "cannot write TensorBoard files to %s: %s; going on",
                self._folder, self._records.error,
            )  # fmt: skip
            self._writer.close()
            self._open()

    def add_scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one point to each named curve; the names are tags such as "baseline/loss_source"."""
        self._mend()
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add a picture, (H, W, 3) uint8."""
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a picture is (H, W, 3) uint8, got {image.shape} {image.dtype}")
        self._writer.add_image(tag, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write out everything."""
        self._writer.close()

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _tensorboard() -> ModuleType:
    """tensorboardX, imported late and without PyTorch, which would cost every start seconds.

    It imports PyTorch where that is installed, to take its tensors too.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # makes it look as if it were not installed
    try:
        import tensorboardX
    finally:
        if hidden:
            del sys.modules["torch"]
    return tensorboardX


class _Records:
    """A file of TensorBoard's records that keeps its first error and writes nothing after it.

    In place of tensorboardX's own one, whose thread would die of a full disk: whoever added to it
    then would wait for ever.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write_event(self, event: Any) -> None:
        self._unless_broken(self._file.write_event, event)

    def flush(self) -> None:
        self._unless_broken(self._file.flush)

    def close(self) -> None:
        self._unless_broken(self._file.close)
        with suppress(OSError):  # what is left in memory would be tried again, with a traceback
            self._file._py_recordio_writer.close()

    def _unless_broken(self, action: Callable[..., Any], *values: Any) -> None:
        if self.error is None:
            try:
                action(*values)
            except OSError as error:
                self.error = error
