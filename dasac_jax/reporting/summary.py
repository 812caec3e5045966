"""The result of a run: a table on the terminal, report.md with a picture, metrics.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dasac_jax.data.labels import CLASSES, Class
from dasac_jax.errors import UserError
from dasac_jax.files import plain, png, write_file

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.md"
PAGE_FILE = "report.html"
PICTURE_FILE = "report.png"

_NOT_EVALUATIONS = ("facts", "left_out", "classes")
UNSCORED = "Nothing was scored: there are no labelled images of the target."
# Which difference says what a stage brought: the later evaluation minus the earlier one.
_GAINS = (("baseline", "source only"), ("adapted", "baseline"), ("teacher", "baseline"))


def write(
    workdir: Path | str,
    rows: Mapping[str, Mapping[str, Any]],
    classes: Sequence[Class],
    *,
    ignore: Iterable[int] = (),
    picture: np.ndarray | None = None,
    facts: Mapping[str, Any],
) -> None:
    """Write metrics.json, report.md and report.png to `workdir`.

    rows: a summary of `metrics.summarise` by evaluation ("source only", "baseline", "adapted",
    "teacher", or others), in the order of the columns; none where nothing was scored. ignore:
    train ids left out of the means. picture: (H, W, 3) uint8. facts: what else belongs to the
    result (seed, steps, seconds, versions, device). Files are replaced whole; metrics.json, the
    last one, holds scores in 0..1 with null for what has no value, and the classes' colours.
    Raises UserError where they cannot be written.
    """
    workdir = Path(workdir)
    class_names = [entry.name for entry in classes]
    result: dict[str, Any] = {
        name: _by_name(summary, class_names) for name, summary in rows.items()
    }
    result["classes"] = {entry.name: list(entry.color) for entry in classes}
    result["left_out"] = [class_names[index] for index in ignore]
    result["facts"] = plain(facts)
    if picture is not None:
        write_file(workdir / PICTURE_FILE, png(picture))
    write_file(workdir / REPORT_FILE, _markdown(result, picture is not None).encode())
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_file(workdir / METRICS_FILE, text)


def read(workdir: Path | str) -> dict[str, Any]:
    """What metrics.json in `workdir` holds. Raises UserError if it cannot be read."""
    path = Path(workdir) / METRICS_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def classes(result: Mapping[str, Any]) -> tuple[Class, ...]:
    """The classes of a result with their colours; Cityscapes' for one that does not say."""
    if "classes" not in result:
        return CLASSES
    stored = enumerate(result["classes"].items())
    return tuple(Class(name, i, i, tuple(color)) for i, (name, color) in stored)


def show(workdir: Path | str, *, console: Console | None = None) -> None:
    """Print the table of a finished run. Raises UserError if its metrics.json cannot be read."""
    result = read(workdir)
    console = console or Console()
    if evaluations(result):
        console.print(_table(result))
    for line in gains(result):
        console.print(line, markup=False, highlight=False)
    for name in (PAGE_FILE, REPORT_FILE, PICTURE_FILE):
        if (Path(workdir) / name).exists():
            console.print(str(Path(workdir) / name), markup=False, highlight=False, soft_wrap=True)


def _table(result: Mapping[str, Any]) -> Table:
    """The scores for the terminal."""
    header, lines, totals = cells(result)
    table = Table(title="IoU in %, target validation set", title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))
    table.add_section()
    for line in totals:
        table.add_row(*line, style="bold")
    return table


def evaluations(result: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a result by evaluation, without what else it holds."""
    return {name: value for name, value in result.items() if name not in _NOT_EVALUATIONS}


def _by_name(summary: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """A summary with class names for positions and null for nan."""
    scores: dict[str, Any] = {key: plain(summary[key]) for key in ("miou", "pixel_accuracy")}
    for key in ("iou", "precision", "recall"):
        scores[key] = dict(zip(class_names, plain(summary[key]), strict=True))
    return scores


def cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Header, one line per class, and the lines of means, all as text."""
    found = evaluations(result)
    scores = list(found.values())
    lines = []
    for name in scores[0]["iou"] if scores else ():
        label = f"{name} (not in the mean)" if name in result["left_out"] else name
        lines.append([label, *(_percent(score["iou"][name]) for score in scores)])
    totals = [
        ["mean IoU", *(_percent(score["miou"]) for score in scores)],
        ["pixel accuracy", *(_percent(score["pixel_accuracy"]) for score in scores)],
    ]
    return ["class", *found], lines, totals


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f}"


def gains(result: Mapping[str, Any]) -> list[str]:
    """What each stage brought in points of mean IoU, where both sides were evaluated."""
    found = evaluations(result)
    told = []
    for later, earlier in _GAINS:
        pair = [found.get(name, {}).get("miou") for name in (later, earlier)]
        if None not in pair:
            told.append(f"{later} over {earlier}: {100 * (pair[0] - pair[1]):+.1f} points")
    return told


def _markdown(result: Mapping[str, Any], with_picture: bool) -> str:
    """The text of report.md."""
    header, lines, totals = cells(result)
    lines = [[label.replace("|", "\\|"), *scores] for label, *scores in lines]
    bold = [[f"**{cell}**" for cell in line] for line in totals]
    rule = ["---", *["---:"] * (len(header) - 1)]
    parts = ["# Result"]
    scored = bool(evaluations(result))
    parts.append("IoU in %, target validation set." if scored else UNSCORED)
    if with_picture:
        parts.append(f"![Image, truth and predictions]({PICTURE_FILE})")
    if scored:
        table = [header, rule, *lines, *bold]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    parts.append("\n".join(f"- {line}" for line in gains(result)))
    parts.append("\n".join(f"- {name}: {words(fact)}" for name, fact in result["facts"].items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def words(fact: Any) -> str:
    """A fact in one line."""
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {words(entry)}" for name, entry in fact.items())
    if isinstance(fact, list):
        return ", ".join(words(entry) for entry in fact)
    return f"{fact:.5g}" if isinstance(fact, float) else str(fact)


def facts(workdir: Path | str) -> dict[str, Any]:
    """The facts of the report in `workdir`; empty where there is none."""
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it") from error
