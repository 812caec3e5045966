"""Reads the numbers and pictures that `recorder` has written during a run's training.

metrics.jsonl has one line for each logged or validated step:
{"stage": "adapt", "step": 50, "seconds": 12.3, "values": {"loss_source": 0.7, "class_prior": [..]}}
where seconds passed since the line before (or since training began) and a list has a number per
class, null for what has no value. A restart removes the lines of steps that its checkpoint does
not hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.files import METRICS_LOG, PICTURES

Line = dict[str, Any]


def read(folder: Path | str) -> list[Line]:
    """The lines of a work directory's metrics.jsonl in their order; none where it has none.

    A last line that was cut off is left out: no checkpoint holds its step. Raises UserError,
    naming the line, where another one is not as it was written.
    """
    path = Path(folder) / METRICS_LOG
    try:
        content = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    lines = []
    for number, text in enumerate(content.split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"]), "values": dict(line["values"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number} is not as it was written ({error}): remove the line"
            ) from error
    return lines


def curve(lines: Sequence[Line], stage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N,) and values (N,) or (N, C) of one name in a stage; nan for what has no value."""
    found = [x for x in lines if x["stage"] == stage and name in x["values"]]
    steps = np.array([line["step"] for line in found], int)
    return steps, np.array([line["values"][name] for line in found], float)


def seconds(lines: Sequence[Line]) -> dict[str, float]:
    """How long each stage trained; steps that a restart did again count once."""
    total: dict[str, float] = {}
    for line in lines:
        total[line["stage"]] = total.get(line["stage"], 0.0) + float(line.get("seconds", 0))
    return total


def pictures(folder: Path | str) -> list[tuple[str, int, str, Path]]:
    """(stage, step, name, file) of a work directory's pictures, sorted by stage, then by step."""
    found = []
    for path in (Path(folder) / PICTURES).glob("*_*_*.png"):
        stage, step, name = path.stem.split("_", 2)
        if step.isdecimal():
            found.append((stage, int(step), name, path))
    return sorted(found)
