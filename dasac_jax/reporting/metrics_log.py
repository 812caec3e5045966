"""What a run leaves of its training: numbers and pictures over time.

metrics.jsonl has one line for each step that was looked at:
{"stage": "adapt", "step": 50, "seconds": 12.3, "values": {"loss_source": 0.7, "class_prior": [..]}}
where seconds passed since the line before (or since training began) and a list has a number per
class, null for what has no value. A restart goes on where its checkpoint stands.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasac_jax.errors import UserError

_LOG = logging.getLogger(__name__)

METRICS_LINES = "metrics.jsonl"
PICTURES = "pictures"
CURVES = "curves"

Line = dict[str, Any]


def read(folder: Path | str) -> list[Line]:
    """The lines of a work directory's metrics.jsonl in their order; none where it has none.

    A last line that was cut off belongs to a step that no checkpoint holds: it is left out.
    Raises UserError, naming the line, where another one is not as it was written.
    """
    path = Path(folder) / METRICS_LINES
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
    """How long each stage trained, what was done over again after a restart counted once."""
    total: dict[str, float] = {}
    for line in lines:
        total[line["stage"]] = total.get(line["stage"], 0.0) + float(line.get("seconds", 0))
    return total


def pictures(folder: Path | str) -> list[tuple[str, int, str, Path]]:
    """(stage, step, name, file) of a work directory's pictures, in the order of their steps."""
    found = []
    for path in (Path(folder) / PICTURES).glob("*_*_*.png"):
        stage, step, name = path.stem.split("_", 2)
        if step.isdecimal():
            found.append((stage, int(step), name, path))
    return sorted(found)
