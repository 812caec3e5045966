"""The result of a run: metrics.json, report.md with a picture, and a table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dasac_jax.data.labels import CLASSES, Class
from dasac_jax.errors import UserError
from dasac_jax.files import (
    CURVES,
    METRICS_FILE,
    PAGE_FILE,
    PICTURE_FILE,
    REPORT_FILE,
    plain,
    png,
    write_file,
)
from dasac_jax.reporting import class_shares, tables

UNSCORED = "Nothing was scored: there are no labelled images of the target."
NOT_IN_MEAN = "(not in the mean)"
# Entries of metrics.json that are no evaluations.
VANISHED_UNKNOWN = "vanished classes"
"""The fact of a result whose baseline's predictions are not known."""

_OTHERS = ("facts", "left_out", "classes", class_shares.ENTRY)
# Pairs of evaluations whose difference, the first minus the second, says what a stage brought.
_GAINS = (("baseline", "source only"), ("adapted", "baseline"), ("teacher", "baseline"))
_GAINS_WITHOUT_BASELINE = (("adapted", "source only"), ("teacher", "source only"))

Scores = dict[str, float | None]
"""A score in 0..1 by evaluation; None where it has no value."""


def write(
    workdir: Path | str,
    rows: Mapping[str, Mapping[str, Any]],
    classes: Sequence[Class],
    *,
    ignore: Iterable[int] = (),
    picture: np.ndarray | None = None,
    facts: Mapping[str, Any],
    shares: Mapping[str, Any] | None = None,
) -> None:
    """Write metrics.json, report.md and report.png to `workdir`.

    rows: a summary of `metrics.summarise` by evaluation ("source only", "baseline", "adapted",
    "teacher", or others), in the order of the columns; none where nothing was scored. ignore:
    train ids left out of the means. picture: (H, W, 3) uint8. facts: what else belongs to the
    result (seed, steps, seconds, versions, device). shares: see `class_shares.entry`. Files are
    replaced whole; metrics.json, the last one, holds scores in 0..1 with null for what has no
    value, and the classes' colours. Raises UserError where they cannot be written.
    """
    workdir = Path(workdir)
    class_names = [entry.name for entry in classes]
    left_out = [class_names[index] for index in ignore]
    result: dict[str, Any] = {
        name: _by_name(summary, class_names, left_out) for name, summary in rows.items()
    }
    result["classes"] = {entry.name: list(entry.color) for entry in classes}
    result["left_out"] = left_out
    if shares is not None:
        result[class_shares.ENTRY] = shares
    result["facts"] = plain(facts)
    if picture is not None:
        write_file(workdir / PICTURE_FILE, png(picture))
    curve = f"{CURVES}/{class_shares.CURVE}.png"
    curve = curve if (workdir / curve).exists() else None
    write_file(workdir / REPORT_FILE, _markdown(result, picture is not None, curve))
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_file(workdir / METRICS_FILE, text)


def read(workdir: Path | str) -> dict[str, Any]:
    """What metrics.json in `workdir` holds. Raises UserError if it cannot be read."""
    path = Path(workdir) / METRICS_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def facts(workdir: Path | str) -> dict[str, Any]:
    """The facts in metrics.json of `workdir`; empty where there is no such file.

    Raises UserError if it cannot be read.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it") from error


def show(workdir: Path | str, *, console: Console | None = None) -> None:
    """Print the table of a finished run. Raises UserError if its metrics.json cannot be read."""
    result = read(workdir)
    console = console or Console()
    if evaluations(result):
        console.print(tables.terminal(_table(result), "IoU in %, target validation set"))
    told = [f"warning: {line}" for line in warnings(result)]
    for line in filter(None, [absent_note(result), *gains(result), *told]):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in (PAGE_FILE, REPORT_FILE, PICTURE_FILE):
        if (Path(workdir) / name).exists():
            console.print(str(Path(workdir) / name), markup=False, highlight=False, soft_wrap=True)


def warnings(result: Mapping[str, Any]) -> list[str]:
    """A line for each class that vanished or grew, or one that says that nobody looked."""
    unknown = result.get("facts", {}).get(VANISHED_UNKNOWN)
    lines = [str(change) for change in class_shares.of_result(result)]
    return [*lines, f"{VANISHED_UNKNOWN}: {unknown}"] if unknown else lines


def evaluations(result: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a result by evaluation, without what else it holds."""
    return {name: value for name, value in result.items() if name not in _OTHERS}


def reference(found: Iterable[str]) -> str:
    """Of evaluations, the one that the adaptation started from.

    Networks without batch norm have no baseline of their own beside "source only".
    """
    return "baseline" if "baseline" in found else "source only"


def classes(result: Mapping[str, Any]) -> tuple[Class, ...]:
    """The classes of a result with their colours; Cityscapes' for one that does not name them."""
    if "classes" not in result:
        return CLASSES
    stored = enumerate(result["classes"].items())
    return tuple(Class(name, i, i, tuple(color)) for i, (name, color) in stored)


def ious(result: Mapping[str, Any]) -> dict[str, Scores]:
    """The IoU of each class, by its name."""
    found = evaluations(result)
    names = next(iter(found.values()))["iou"] if found else ()
    return {name: {key: scores["iou"][name] for key, scores in found.items()} for name in names}


def totals(result: Mapping[str, Any]) -> dict[str, Scores]:
    """What is scored over all classes, by its title."""
    titles = {"mean IoU": "miou", "pixel accuracy": "pixel_accuracy"}
    found = evaluations(result)
    return {
        title: {key: scores[entry] for key, scores in found.items()}
        for title, entry in titles.items()
    }


def mean_title(result: Mapping[str, Any], name: str = "mean IoU") -> str:
    """A mean's name, with over how many classes it is where some are absent.

    Absent is a class without an IoU: it is neither in the truth nor predicted.
    """
    found = evaluations(result).values()
    counted = [_counted(scores["iou"], result["left_out"]) for scores in found]
    return tables.mean_title(name, [n for n, _ in counted], counted[0][1] if counted else 0)


def absent(result: Mapping[str, Any]) -> list[str]:
    """The classes of the mean that have no IoU in some evaluation."""
    return [
        name
        for name, scores in ious(result).items()
        if None in scores.values() and name not in result["left_out"]
    ]


def absent_note(result: Mapping[str, Any]) -> str:
    """A sentence on the classes that the mean lacks; empty where it lacks none."""
    names = absent(result)
    if not names:
        return ""
    return (
        f"{mean_title(result, 'mean')}: {', '.join(names)} "
        f"{'is' if len(names) == 1 else 'are'} neither in the truth nor predicted."
    )


def gains(result: Mapping[str, Any]) -> list[str]:
    """What each stage brought in points of mean IoU, where both sides were evaluated."""
    miou = totals(result)["mean IoU"]
    lines = []
    for later, earlier in _GAINS if "baseline" in miou else _GAINS_WITHOUT_BASELINE:
        after, before = miou.get(later), miou.get(earlier)
        if after is not None and before is not None:
            lines.append(
                f"{later} over {earlier}: {tables.percent(after - before, sign='+')} points"
            )
    return lines


def _counted(iou: Mapping[str, float | None], left_out: Sequence[str]) -> tuple[int, int]:
    """How many classes of the mean have an IoU, and how many there are."""
    values = [value for name, value in iou.items() if name not in left_out]
    return sum(value is not None for value in values), len(values)


def _by_name(
    summary: Mapping[str, Any], class_names: Sequence[str], left_out: Sequence[str]
) -> dict[str, Any]:
    """A summary with scores by class name, and None for nan; and what its mean is over."""
    scores: dict[str, Any] = {key: plain(summary[key]) for key in ("miou", "pixel_accuracy")}
    for key in ("iou", "precision", "recall"):
        scores[key] = dict(zip(class_names, plain(summary[key]), strict=True))
    present, of = _counted(scores["iou"], left_out)
    scores["mean"] = tables.mean_title(f"mean over {of} classes", [present], of)
    return scores


def _table(result: Mapping[str, Any]) -> tables.Table:
    """The IoU of every class and the totals, in %."""

    def line(label: str, scores: Scores) -> list[str]:
        return [label, *map(tables.percent, scores.values())]

    lines = [
        line(f"{name} {NOT_IN_MEAN}" if name in result["left_out"] else name, scores)
        for name, scores in ious(result).items()
    ]
    titles = {"mean IoU": mean_title(result)}
    last = [line(titles.get(title, title), scores) for title, scores in totals(result).items()]
    return tables.Table(["class", *evaluations(result)], lines, last)


def _markdown(result: Mapping[str, Any], with_picture: bool, curve: str | None) -> str:
    """The text of report.md. curve: the file of the shares' curve, where there is one."""
    scored = bool(evaluations(result))
    parts = ["# Result", "IoU in %, target validation set." if scored else UNSCORED]
    if with_picture:
        parts.append(f"![Image, truth and predictions]({PICTURE_FILE})")
    if scored:
        parts.append(tables.markdown(_table(result)))
        parts.append(absent_note(result))
    parts.append("\n".join(f"- {line}" for line in gains(result)))
    parts += class_shares.markdown(result, curve)
    facts = result["facts"].items()
    parts.append("\n".join(f"- {name}: {tables.one_line(fact)}" for name, fact in facts))
    return "\n\n".join(part for part in parts if part) + "\n"
