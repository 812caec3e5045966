"""Writes what a stage's training has to say, while it goes on: numbers, pictures, curves."""

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
from dasac_jax.files import plain, png, write_file
from dasac_jax.reporting.metrics_log import CURVES, METRICS_LINES, PICTURES, read
from dasac_jax.runtime import tensorboard
from dasac_jax.runtime.stop_requests import Stopped

_LOG = logging.getLogger(__name__)
_DRAW_SECONDS = 30  # between two drawings of the curves, which take a second or two, at least


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
        self._drawn_at = -_DRAW_SECONDS
        if enabled:
            _forget(self._folder, stage, first_step)
        events = self._folder / "tensorboard" / stage
        self._events = tensorboard.EventWriter(events, enabled=enabled)

    def add(
        self,
        step: int,
        values: Mapping[str, float | np.ndarray],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep what there is to say of a step, all at once.

        values: numbers, or arrays (C,) with nan for what has no value. pictures: (H, W, 3) uint8;
        with any, the curves are drawn anew, unless they just were. What cannot be written (a full
        disk) is a warning; numbers are kept for the next time.
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
            _try_to_replace(self._folder / PICTURES / file, png(picture))
        if pictures and now - self._drawn_at > _DRAW_SECONDS:
            self.draw()

    def flush(self) -> bool:
        """Whether all numbers so far are on disk; warns where they are not."""
        if self._unwritten:
            try:
                _append(self._folder / METRICS_LINES, self._unwritten)
            except OSError as error:
                _LOG.warning("cannot write %s: %s; going on", self._folder / METRICS_LINES, error)
                return False
            self._unwritten = ""
        return True

    def draw(self) -> None:
        """Draw the curves of all stages so far."""
        from dasac_jax.reporting import training_curves  # matplotlib, which takes a while to import

        for name, content in training_curves.draw(read(self._folder), self._classes).items():
            _try_to_replace(self._folder / CURVES / f"{name}.png", content)
        self._drawn, self._drawn_at = True, time.monotonic()

    def _tags(self, name: str, value: float | np.ndarray) -> dict[str, float]:
        tag = f"{self._stage}/{name}"
        if np.ndim(value) == 0:
            return {tag: float(value)}
        by_class = zip(self._classes, value, strict=True)
        named = {f"{tag}/{entry.name}": float(x) for entry, x in by_class if np.isfinite(x)}
        return {key.replace(" ", "_"): x for key, x in named.items()}  # tags have no spaces

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
                f"cannot write {self._folder / METRICS_LINES}; checkpoints are kept: make room, "
                "and give the same command again"
            )


def _forget(folder: Path, stage: str, first_step: int) -> None:
    """Keep the lines of other stages and those of this one up to a step."""
    lines = read(folder)
    kept = [line for line in lines if line["stage"] != stage or line["step"] <= first_step]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept)
    write_file(folder / METRICS_LINES, text)


def _append(path: Path, text: str) -> None:
    """All of it, on disk when this returns: a checkpoint of the step is saved only later.

    Raises OSError where it cannot be, and nothing of it is there then.
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


def _try_to_replace(path: Path, content: bytes) -> None:
    """Write a file that training can do without; warns where that fails."""
    try:
        write_file(path, content)
    except UserError as error:
        _LOG.warning("%s; going on", error)
