"""Writes a stage's numbers, pictures and curves while it trains; `metrics_log` reads them."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from dasac_jax.data.labels import Class
from dasac_jax.errors import UserError
from dasac_jax.files import CURVES, METRICS_LOG, PICTURES, TENSORBOARD, plain, png, write_file
from dasac_jax.reporting.metrics_log import read
from dasac_jax.runtime import tensorboard
from dasac_jax.runtime.stop_requests import Stopped

_LOG = logging.getLogger(__name__)
_DRAW_SECONDS = 30  # the least time between two drawings of the curves; one takes 1 or 2 seconds


class Recorder:
    """A stage's numbers and pictures, to TensorBoard and to files of the work directory.

    first_step: the step that training goes on from; lines of later steps are removed. With
    enabled=False (all but one of several processes) nothing is written.
    """

    def __init__(
        self,
        folder: Path | str,
        stage: str,
        first_step: int,
        classes: Sequence[Class],
        *,
        enabled: bool = True,
    ) -> None:
        self._folder, self._stage = Path(folder), stage
        self._classes, self._enabled = classes, enabled
        self._last = time.monotonic()
        self._unwritten = ""
        self._drawn = False  # whether the curves show all numbers
        self._drawn_at = self._last  # at the start there is little to see
        if enabled:
            _drop_later_lines(self._folder, stage, first_step)
        events = self._folder / TENSORBOARD / stage
        self._events = tensorboard.EventWriter(events, enabled=enabled)

    def add(
        self,
        step: int,
        values: Mapping[str, float | np.ndarray],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write the numbers and pictures of a step; call it once for each step.

        values: numbers, or arrays (C,) with nan for what has no value. pictures: (H, W, 3) uint8;
        with any, the curves are drawn anew, at most every half minute. Where a file cannot be
        written (a full disk) a warning says so; the numbers are kept and written the next time.
        """
        if not self._enabled:
            return
        tags = [self._tags(name, value) for name, value in values.items()]
        self._events.add_scalars(step, {tag: x for part in tags for tag, x in part.items()})
        now = time.monotonic()
        line = {"stage": self._stage, "step": step, "seconds": round(now - self._last, 3)}
        self._last = now
        line["values"] = plain(values)
        self._unwritten += json.dumps(line, allow_nan=False) + "\n"
        self._drawn = False
        self.flush()
        for name, picture in (pictures or {}).items():
            self._events.add_image(f"{self._stage}/{name}", picture, step)
            file = f"{self._stage}_{step:06d}_{name}.png"
            _write_or_warn(self._folder / PICTURES / file, png(picture))
        if pictures and now - self._drawn_at > _DRAW_SECONDS:
            self.draw()

    def flush(self) -> bool:
        """Write the numbers that are not on disk yet; whether all are then. Warns if not."""
        if self._unwritten:
            try:
                _append(self._folder / METRICS_LOG, self._unwritten)
            except OSError as error:
                _LOG.warning("cannot write %s: %s; going on", self._folder / METRICS_LOG, error)
                return False
            self._unwritten = ""
        return True

    def draw(self) -> None:
        """Draw the curves of all stages so far."""
        # Imported late, as it imports matplotlib, which takes long.
        from dasac_jax.reporting import training_curves

        for name, content in training_curves.draw(read(self._folder), self._classes).items():
            _write_or_warn(self._folder / CURVES / f"{name}.png", content)
        self._drawn, self._drawn_at = True, time.monotonic()

    def _tags(self, name: str, value: float | np.ndarray) -> dict[str, float]:
        """A value by its tag in TensorBoard, an array's finite values by a tag for each class."""
        tag = f"{self._stage}/{name}"
        if np.ndim(value) == 0:
            return {tag: float(value)}
        by_class = zip(self._classes, value, strict=True)
        named = {f"{tag}/{entry.name}": float(x) for entry, x in by_class if np.isfinite(x)}
        return {key.replace(" ", "_"): x for key, x in named.items()}  # tags hold no spaces

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
        if kind is None and self._enabled and not self._drawn:
            self.draw()
        if not self.flush() and (kind is None or issubclass(kind, Stopped)):
            raise UserError(
                f"cannot write {self._folder / METRICS_LOG}; checkpoints are kept: make room, "
                "and give the same command again"
            )


def _drop_later_lines(folder: Path, stage: str, first_step: int) -> None:
    """Keep the lines of other stages and those of this one up to a step."""
    lines = read(folder)
    kept = [line for line in lines if line["stage"] != stage or line["step"] <= first_step]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept)
    write_file(folder / METRICS_LOG, text)


def _append(path: Path, text: str) -> None:
    """Append text to a file; it is on disk when this returns.

    A checkpoint of the step is saved only later, so that no restart can miss a line. Raises
    OSError where not all of it can be written; the file is as before then.
    """
    content = text.encode()
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _write_or_warn(path: Path, content: bytes) -> None:
    """Write a file that training can do without; warns where that fails."""
    try:
        write_file(path, content)
    except UserError as error:
        _LOG.warning("%s; going on", error)
