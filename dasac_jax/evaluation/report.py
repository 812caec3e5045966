"""An evaluation's report: markdown, JSON, CSV, pictures, and a table on the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from dasac_jax.errors import UserError
from dasac_jax.evaluation import plots, seed_groups
from dasac_jax.evaluation.scores import Result, scores
from dasac_jax.files import plain, write_file
from dasac_jax.reporting import tables

MARKDOWN_FILE = "evaluation.md"
JSON_FILE = "evaluation.json"
CSV_FILE = "evaluation.csv"
BARS_FILE = "iou.png"

_KEYS = {"iou": "IoU", "precision": "precision", "recall": "recall"}
_ACCURACY = "pixel accuracy"
_NOTE = (
    "nan: a class that is neither in the truth nor predicted on any scored pixel has no IoU, one "
    "that is never predicted no precision, and one that is not there no recall; each is left out "
    "of its mean, as in the official Cityscapes evaluation. A class that is predicted but not "
    "there has IoU 0, and counts."
)

_OVER_SEEDS = "IoU in %, mean ± standard deviation over seeds"

_percent = partial(tables.percent, digits=2, missing="nan")
_points = partial(_percent, sign="+")


def write(
    folder: Path,
    results: Sequence[Result],
    means: Mapping[str, tuple[int, ...]],
    *,
    facts: Mapping[str, Any],
    groups: Sequence[seed_groups.Named] = (),
    console: Console | None = None,
) -> None:
    """Write the report of one or several results to `folder` and print its table.

    results: of the same classes, with names of their own; differences are to the first. means:
    see `scores.means`. facts: what else belongs to the report, JSON values by name. groups: results
    that differ in their seed alone, whose mean and deviation are told as well. Files are replaced
    whole; evaluation.json, the last one, holds every number in 0..1 and the counts, null
    for nan. Raises UserError for results of different classes, and where a file cannot be written.
    """
    names = results[0].class_names
    for result in results[1:]:
        if result.class_names != names:
            raise UserError(
                f"{results[0].name} has {len(names)} classes, {result.name} "
                f"{len(result.class_names)} or others: only results of the same classes compare"
            )
    by_name = {result.name: scores(result, means) for result in results}
    earlier = _reported(folder)
    pictures = _pictures(results, by_name)
    for file, content in pictures.items():
        write_file(folder / file, content)
    for path in folder.glob("confusion*.png"):  # an earlier report was of more or fewer results
        if re.fullmatch(r"confusion(_\d+)?\.png", path.name) and path.name not in pictures:
            path.unlink()
    text = _markdown(results, by_name, list(pictures), facts, groups)
    write_file(folder / MARKDOWN_FILE, text)
    write_file(folder / CSV_FILE, _csv(results, by_name))
    content = _document(results, by_name, means, facts)
    if groups:
        content["seeds"] = seed_groups.document(groups, by_name, names)
    write_file(folder / JSON_FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")
    console = console or Console()
    _show(console, results, by_name)
    if groups:
        console.print(tables.terminal(seed_groups.table(groups, by_name, names), _OVER_SEEDS))
        for line in seed_groups.notes(groups):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if earlier not in ([], list(by_name)):
        told = f"{folder} held the report of {', '.join(earlier)}, which this one has replaced"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _reported(folder: Path) -> list[str]:
    """The names of the results whose report a folder holds; none where it has no whole report."""
    try:
        return list(json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _pictures(results: Sequence[Result], by_name: Mapping[str, Any]) -> dict[str, bytes]:
    """The PNG files by their names."""
    names = results[0].class_names
    ious = {name: values["iou"] for name, values in by_name.items()}
    pictures = {BARS_FILE: plots.iou_bars(names, ious)}
    for number, result in enumerate(results, start=1):
        file = "confusion.png" if len(results) == 1 else f"confusion_{number}.png"
        pictures[file] = plots.confusion_matrix(names, result.counts, result.name)
    return pictures


def _document(
    results: Sequence[Result],
    by_name: Mapping[str, Any],
    means: Mapping[str, tuple[int, ...]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What evaluation.json holds."""
    names = results[0].class_names

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        by_class = {key: dict(zip(names, plain(values[key]), strict=True)) for key in _KEYS}
        rest = {key: plain(values[key]) for key in ("pixel_accuracy", "means")}
        return {**by_class, **rest}

    first = by_name[results[0].name]
    return {
        "classes": list(names),
        "means": {name: [names[i] for i in ids] for name, ids in means.items()},
        "results": {
            result.name: {
                **named(by_name[result.name]),
                "images": result.images,
                "confusion": plain(result.counts[:, :-1]),
                "predicted_as_no_class": plain(result.counts[:, -1]),
                "facts": plain(result.facts),
                "notes": list(result.notes),
            }
            for result in results
        },
        "differences": {
            "to": results[0].name,
            **{result.name: named(_minus(by_name[result.name], first)) for result in results[1:]},
        },
        "facts": plain(facts),
    }


def _minus(later: Any, earlier: Any) -> Any:
    """Differences of scores, entry by entry; of what a mean is over there is none."""
    if isinstance(later, Mapping):
        kept = later.keys() - {"classes", "counted", "of", "title"}
        return {key: _minus(later[key], earlier[key]) for key in later if key in kept}
    return later - earlier


def _csv(results: Sequence[Result], by_name: Mapping[str, Any]) -> str:
    """A line for each result and class, then its means; scores in 0..1 with all digits, or nan."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["result", "class", *_KEYS, "true_pixels", "predicted_pixels"])
    for result in results:
        values = by_name[result.name]
        truth, predicted = result.counts.sum(1), result.counts.sum(0)
        for index, name in enumerate(result.class_names):
            numbers = [float(values[key][index]) for key in _KEYS]
            writer.writerow([result.name, name, *numbers, truth[index], predicted[index]])
        for mean in values["means"].values():
            writer.writerow([result.name, mean["title"], *(mean[key] for key in _KEYS), "", ""])
        writer.writerow([result.name, _ACCURACY, values["pixel_accuracy"], "", "", "", ""])
    return lines.getvalue()


def _table(
    results: Sequence[Result], by_name: Mapping[str, Any], keys: Sequence[str]
) -> tables.Table:
    """The scores named by `keys`, in %, of each class, then their means and the pixel accuracy.

    Several results stand beside each other under their letters, followed by the differences of
    the others to the first.
    """
    first, *others = (by_name[result.name] for result in results)
    letters = _letters(len(results))
    header = ["class"]
    for key in keys:
        header += letters if others else [_KEYS[key]]
        header += [f"{letter} − {letters[0]}" for letter in letters[1:]]

    def line(label: str, pick: Callable[[Mapping[str, Any], str], float]) -> list[str]:
        cells = [label]
        for key in keys:
            picked = [pick(values, key) for values in (first, *others)]
            cells += [_percent(value) for value in picked]
            cells += [_points(value - picked[0]) for value in picked[1:]]
        return cells

    lines = [
        line(name, lambda values, key, i=index: float(values[key][i]))
        for index, name in enumerate(results[0].class_names)
    ]
    totals = []
    for name in first["means"]:
        counted = [values["means"][name]["counted"][keys[0]] for values in (first, *others)]
        label = tables.mean_title(name, counted, first["means"][name]["of"])
        totals.append(line(label, lambda values, key, mean=name: values["means"][mean][key]))
    accuracy = line(_ACCURACY, lambda values, _: values["pixel_accuracy"])
    width = len(accuracy) - 1
    # Pixel accuracy is one number of a result: it stands below the first of the scores only.
    keep = width if keys == ("iou",) else width // len(keys)
    totals.append([accuracy[0], *accuracy[1 : keep + 1], *[""] * (width - keep)])
    return tables.Table(header, lines, totals)


def _letters(count: int) -> list[str]:
    """A, B, … for results that stand beside each other, as their names would not fit."""
    return [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(count)]


def _letters_explained(results: Sequence[Result]) -> list[str]:
    """Which result a letter means, in lines; none for a single result."""
    if len(results) == 1:
        return []
    letters = _letters(len(results))
    return [f"{letter}: {result.name}" for letter, result in zip(letters, results, strict=True)]


def _notes(results: Sequence[Result]) -> list[str]:
    """What the results' numbers do not say, in lines."""
    return [
        f"{result.name}: {note}"
        for result in results
        for note in [*result.notes, *_without_a_score(result)]
    ]


def _without_a_score(result: Result) -> Iterator[str]:
    """Which classes with an IoU have no precision or no recall, so that a mean leaves them out."""
    truth, predicted = result.counts.sum(1), result.counts.sum(0)[: len(result.counts)]
    for key, why, absent, there in (
        ("precision", "never predicted", predicted == 0, truth > 0),
        ("recall", "not in the truth", truth == 0, predicted > 0),
    ):
        names = [result.class_names[i] for i in np.flatnonzero(absent & there)]
        if names:
            yield f"{', '.join(names)}: {why}, so the mean {key} is over the other classes"


def _markdown(
    results: Sequence[Result],
    by_name: Mapping[str, Any],
    pictures: Sequence[str],
    facts: Mapping[str, Any],
    groups: Sequence[seed_groups.Named],
) -> str:
    """The text of evaluation.md."""
    parts = ["# Evaluation"]
    if groups:
        shown = seed_groups.table(groups, by_name, results[0].class_names)
        parts += [f"## {_OVER_SEEDS}", tables.markdown(shown)]
        parts += ["\n".join(f"- {line}" for line in seed_groups.notes(groups)), "## Each result"]
    parts.append("\n".join(f"- {line}" for line in _letters_explained(results)))
    parts += [*_tables_in_markdown(results, by_name), _NOTE]
    parts.append("\n".join(f"- {line}" for line in _notes(results)))
    parts += [f"![{file.removesuffix('.png')}]({file})" for file in pictures]
    of_results = {result.name: {"images": result.images, **result.facts} for result in results}
    everything = [*of_results.items(), *facts.items()]
    parts.append("\n".join(f"- {name}: {tables.one_line(fact)}" for name, fact in everything))
    return "\n\n".join(part for part in parts if part) + "\n"


def _tables_in_markdown(results: Sequence[Result], by_name: Mapping[str, Any]) -> list[str]:
    """One table for a single result; of several a table for each score, with its heading."""
    groups = [tuple(_KEYS)] if len(results) == 1 else [(key,) for key in _KEYS]
    parts = []
    for keys in groups:
        table = _table(results, by_name, keys)
        if len(keys) == 1:
            parts.append(f"## {_KEYS[keys[0]]}")
            if keys != ("iou",):
                table = table._replace(totals=table.totals[:-1])  # without the pixel accuracy
        parts.append("In %, differences in points." if len(results) > 1 else "In %.")
        parts.append(tables.markdown(table))
    return parts


def _show(console: Console, results: Sequence[Result], by_name: Mapping[str, Any]) -> None:
    """Print the table: of one result all its scores, of several their IoU."""
    keys = tuple(_KEYS) if len(results) == 1 else ("iou",)
    title = results[0].name if len(results) == 1 else "IoU"
    console.print(tables.terminal(_table(results, by_name, keys), Text(f"{title}, in %")))
    for line in _letters_explained(results):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in _notes(results):
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    if any(np.isnan(values[key]).any() for values in by_name.values() for key in keys):
        console.print(_NOTE, markup=False, highlight=False)
