"""TensorBoard's event files, so that a full disk costs curves and never the run."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dasac_jax.errors import UserError

_LOG = logging.getLogger(__name__)


@contextmanager
def _torch_hidden() -> Iterator[None]:
    """Let imports find no PyTorch, unless it is imported already."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # Python raises ImportError for such an entry
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


# To take PyTorch's tensors too, tensorboardX imports PyTorch where that is installed, which would
# cost every start seconds.
with _torch_hidden():
    from tensorboardX import summary
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter


class EventWriter:
    """Writes event files: `with EventWriter(folder) as events: events.add_scalars(...)`.

    folder is made where missing; a restarted run adds a file to those that are there. What was
    added is on disk when the call returns. Where that fails (a full disk) a warning is all, and
    the next `add_scalars` begins another file. With enabled=False (all but one of several
    processes) nothing is written. Raises UserError where the first file cannot be written.

    tensorboardX's own SummaryWriter is not used: a full disk ends its writing thread, and the next
    call that adds something never returns.
    """

    def __init__(self, folder: Path | str, *, enabled: bool = True) -> None:
        self._folder, self._enabled = Path(folder), enabled
        self._file: RecordWriter | None = None
        if enabled:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._begin()
            except OSError as error:
                raise UserError(f"cannot write TensorBoard files to {folder}: {error}") from error

    def add_scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one point to each named curve; the names are tags such as "baseline/loss_source"."""
        if self._enabled:
            points = [summary.scalar(tag, float(value)) for tag, value in values.items()]
            self._write(step, points)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add a picture, (H, W, 3) uint8. Raises ValueError for other arrays."""
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a picture is (H, W, 3) uint8, got {image.shape} {image.dtype}")
        if self._file is not None:  # not after a failure: scalars, which are small, try first
            self._write(step, [summary.image(tag, image, dataformats="HWC")])

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            with suppress(OSError):  # of what could not be written there is a warning already
                self._file.close()
            self._file = None

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, step: int, parts: list[Summary]) -> None:
        values = [value for part in parts for value in part.value]
        try:
            if self._file is None:
                self._begin()
            self._append(Event(step=step, summary=Summary(value=values)))
        except OSError as error:
            _LOG.warning("cannot write TensorBoard files to %s: %s; going on", self._folder, error)
            self.close()

    def _begin(self) -> None:
        """Begin another file, of which nothing is left where that fails."""
        # TensorBoard reads files in the order of their names, each of which must be a new one.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._file = RecordWriter(str(self._folder / name))
        try:
            self._append(Event(file_version="brain.Event:2"))
        except OSError:
            self.close()
            (self._folder / name).unlink()
            raise

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
        self._file.flush()
