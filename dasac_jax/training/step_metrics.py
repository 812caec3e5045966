"""The metrics of the steps since they were last logged: means, and which steps were skipped."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.runtime import data_parallel

Entry = dict[str, Any]


class StepMetrics:
    """Metrics as the steps give them, left on the device until they are needed.

    name: the stage's, for messages. most_skipped: how many steps in a row may be skipped. progress:
    what `progress` gave when the run was stopped before these steps were logged, so that the means
    are those of a run that was never stopped.
    """

    def __init__(self, name: str, most_skipped: int, progress: Mapping[str, Any]) -> None:
        self._name, self._most_skipped = name, most_skipped
        self._entries: list[Entry] = list(progress.get("unlogged_steps", ()))
        # The skipped steps right before these.
        self._skipped_before: list[Entry] = list(progress.get("skipped_in_row", ()))
        self._on_device: list[tuple[int, dict[str, jax.Array], Sequence[str]]] = []

    def add(self, step: int, metrics: dict[str, jax.Array], names: Sequence[str]) -> None:
        """Keep a step's metrics, of which `skipped` is one, and the names of its images."""
        self._on_device.append((step, metrics, names))

    def is_computed(self) -> bool:
        """Whether the devices have done all steps so far, so that they have nothing to do."""
        return not self._on_device or all(x.is_ready() for x in self._on_device[-1][1].values())

    def progress(self) -> dict[str, Any]:
        """What a checkpoint has to say of the steps that are not logged yet, for JSON."""
        return {"unlogged_steps": self._fetched(), "skipped_in_row": self._skipped_before}

    def means(self) -> tuple[dict[str, float | np.ndarray], int]:
        """Means over the steps that were not skipped (nan if all were), and the number skipped.

        Where all were, metrics (C,) are left out. Waits for the device. Raises UserError where too
        many in a row were skipped.
        """
        entries = self._fetched()
        row = self._skipped_before
        for entry in entries:
            row = [*row, entry] if "skipped" in entry else []
            if len(row) >= self._most_skipped:
                raise UserError(_too_many(self._name, row))
        values = [entry["values"] for entry in entries if "skipped" not in entry]
        if not values:
            return dict.fromkeys(entries[0]["values"], math.nan), len(entries)
        means = {key: _mean([v[key] for v in values]) for key in values[0]}
        return means, len(entries) - len(values)

    def clear(self) -> None:
        """Begin anew, the steps so far being logged."""
        for entry in self._fetched():
            skipped = "skipped" in entry
            self._skipped_before = [*self._skipped_before, entry] if skipped else []
        self._entries = []

    def _fetched(self) -> list[Entry]:
        self._entries += [_entry(*kept) for kept in self._on_device]
        self._on_device = []
        return self._entries


def _mean(values: Sequence[float | list[float]]) -> float | np.ndarray:
    mean = np.mean(values, axis=0)
    return mean if mean.ndim else float(mean)


def _entry(step: int, metrics: dict[str, jax.Array], names: Sequence[str]) -> Entry:
    """A step in JSON's terms; a skipped one says why, and what it read."""
    values = {key: data_parallel.first(value) for key, value in metrics.items()}
    numbers = {key: float(x) for key, x in values.items() if x.ndim == 0}
    skipped = numbers.pop("skipped")
    by_class = {key: x.reshape(-1).tolist() for key, x in values.items() if x.ndim}
    # JSON knows no nan, and no mean takes account of a skipped step.
    entry = {"step": step, "values": dict.fromkeys(numbers) if skipped else numbers | by_class}
    if skipped:
        bad = [f"{key} is {x}" for key, x in numbers.items() if not math.isfinite(x)]
        entry |= {"skipped": bad[0] if bad else "a gradient is not finite", "names": list(names)}
    return entry


def _too_many(name: str, row: Sequence[Entry]) -> str:
    first, last = row[0], row[-1]
    return (
        f"{name} steps {first['step']} to {last['step']} were all skipped "
        f"(config.max_skipped_steps): at step {first['step']} {first['skipped']}. It read "
        f"{', '.join(first['names'])}: look at these files, or try a smaller learning rate; "
        "checkpoints before it are kept"
    )
