"""The scores of runs that differ in their seed alone: each, their mean, and how far they lie apart.

Written where a run of several seeds has its folder: metrics.json and report.md, and a table on the
terminal; `seed_page` writes report.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dasac_jax.errors import UserError
from dasac_jax.files import METRICS_FILE, PAGE_FILE, REPORT_FILE, SEED_FOLDER, write_file
from dasac_jax.reporting import spread, summary, tables
from dasac_jax.reporting.spread import Spread

GAIN = "gain"
"""What the adaptation brought: adapted minus baseline, for each seed."""

TOTALS = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy"}

Result = dict[str, Any]


def collect(folders: Mapping[int, Path], wanted: Collection[int] = ()) -> Result:
    """The scores of the finished seeds, as JSON has them; scores are in 0..1, null for none.

    folders: of the seeds' runs. wanted: seeds that belong to the whole, whether begun or not. Only
    what all finished seeds were scored on is told: `evaluations`, names in order; `runs`, by seed
    the miou, pixel_accuracy and iou of each, and the gain; `mean` and `deviation` in the same form,
    the latter null where one seed alone is finished; `finished` and `unfinished` seeds, and
    `warnings` by seed. Raises UserError where a file cannot be read, and for runs of other classes.
    """
    finished = {x: summary.read(y) for x, y in folders.items() if (y / METRICS_FILE).exists()}
    known = sorted({*folders, *wanted})
    results = list(finished.values())
    for seed, result in finished.items():
        if summary.classes(result) != summary.classes(results[0]):
            raise UserError(
                f"{folders[seed] / METRICS_FILE} has other classes than the seeds before: remove "
                "the folder, or choose another --workdir"
            )
    common = [
        name
        for name in (summary.evaluations(results[0]) if results else ())
        if all(name in result for result in results)
    ]
    runs = {seed: _scores(result, common) for seed, result in finished.items()}
    warnings = {str(seed): summary.warnings(result) for seed, result in finished.items()}
    return {
        "finished": list(finished),
        "unfinished": [seed for seed in known if seed not in finished],
        "evaluations": common,
        "runs": {str(seed): scores for seed, scores in runs.items()},
        "mean": _over(runs, lambda found: found.mean),
        "deviation": _over(runs, lambda found: found.deviation) if len(runs) > 1 else None,
        "warnings": {seed: lines for seed, lines in warnings.items() if lines},
        "left_out": results[0]["left_out"] if results else [],
    }


def write(folder: Path, result: Result) -> None:
    """Write metrics.json and report.md. Raises UserError where they cannot be written."""
    write_file(folder / REPORT_FILE, _markdown(result))
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_file(folder / METRICS_FILE, text)


def show(folder: Path, result: Result, console: Console | None = None) -> None:
    """Print the means over the seeds, every seed's mean IoU, and where the files are."""
    console = console or Console()
    if result["evaluations"]:
        few = [name for name in columns_of(result) if name != "source only"]  # 80 characters wide
        by_class = class_table(result, few if len(few) > 1 else None)
        console.print(tables.terminal(by_class, heading(result)))
        console.print(tables.terminal(seed_table(result), "Mean IoU in % by seed"))
    lines = [finished_note(result), *warnings(result)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in (PAGE_FILE, REPORT_FILE):
        if (folder / name).exists():
            console.print(str(folder / name), markup=False, highlight=False, soft_wrap=True)


def heading(result: Result) -> str:
    """What the table of means shows."""
    if len(result["finished"]) == 1:
        return f"IoU in %, seed {result['finished'][0]} alone"
    return f"IoU in %, mean ± standard deviation over {len(result['finished'])} seeds"


def finished_note(result: Result) -> str:
    """How many of the seeds are finished, and which."""
    done, left = result["finished"], result["unfinished"]
    text = f"{len(done)} of {len(done) + len(left)} seeds are finished"
    text += f": {', '.join(map(str, done))}" if done else ""
    text += f"; not yet: {', '.join(map(str, left))}" if left else ""
    if len(done) == 1:
        text += "; one seed says nothing of how much another one would differ"
    return text


def warnings(result: Result) -> list[str]:
    """A line for each class that vanished or grew, with its seed."""
    return [
        f"warning: seed {seed}: {line}"
        for seed, lines in result["warnings"].items()
        for line in lines
    ]


def class_table(result: Result, columns: Sequence[str] | None = None) -> tables.Table:
    """Mean and deviation by class and evaluation, and of the gains; or of some columns alone."""
    columns = columns or columns_of(result)

    def line(label: str, pick: Callable[[Mapping[str, Any]], float | None]) -> list[str]:
        cells = [label]
        for name in columns:
            found = spread.of(pick(run[name]) for run in result["runs"].values())
            cells.append(spread.text(found, sign="+" if name == GAIN else ""))
        return cells

    classes = _classes(result)
    return tables.Table(
        ["class", *columns],
        [line(_label(result, name), lambda scores, n=name: scores["iou"][n]) for name in classes],
        [line(title, lambda scores, k=key: scores[k]) for key, title in TOTALS.items()],
    )


def seed_table(result: Result) -> tables.Table:
    """Every seed's mean IoU by evaluation, and its gain; means over the seeds last."""
    columns = columns_of(result)
    lines = [
        [f"seed {seed}"]
        + [tables.percent(run[x]["miou"], sign="+" if x == GAIN else "") for x in columns]
        for seed, run in result["runs"].items()
    ]
    return tables.Table(["", *columns], lines, [["mean", *class_table(result).totals[0][1:]]])


def by_class_tables(result: Result) -> dict[str, tables.Table]:
    """For each evaluation, and the gain, every seed's IoU by class."""
    found = {}
    for name in columns_of(result):
        sign = "+" if name == GAIN else ""
        lines = [
            [_label(result, entry)]
            + [
                tables.percent(run[name]["iou"][entry], sign=sign)
                for run in result["runs"].values()
            ]
            for entry in _classes(result)
        ]
        found[name] = tables.Table(
            ["class", *(f"seed {seed}" for seed in result["runs"])], lines, []
        )
    return found


def columns_of(result: Result) -> list[str]:
    """The evaluations, and the gain where there is one."""
    has_gain = all(GAIN in run for run in result["runs"].values())
    return [*result["evaluations"], *([GAIN] if has_gain else [])]


def _scores(result: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A run's scores by evaluation, and its gain."""
    scores = {
        name: {key: result[name][key] for key in (*TOTALS, "iou")} for name in names
    }  # fmt: skip
    reference = summary.reference(scores)
    if {reference, "adapted"} <= scores.keys():
        after, before = scores["adapted"], scores[reference]
        scores[GAIN] = {key: _minus(after[key], before[key]) for key in TOTALS}
        iou = {name: _minus(value, before["iou"][name]) for name, value in after["iou"].items()}
        scores[GAIN]["iou"] = iou
    return scores


def _over(
    runs: Mapping[int, Mapping[str, Any]], pick: Callable[[Spread], float | None]
) -> dict[str, Any]:
    """Scores in the form of one run's, each made of all runs' by `pick`."""
    first = next(iter(runs.values()), {})
    return {
        name: {
            **{key: pick(spread.of(run[name][key] for run in runs.values())) for key in TOTALS},
            "iou": {
                entry: pick(spread.of(run[name]["iou"][entry] for run in runs.values()))
                for entry in scores["iou"]
            },
        }
        for name, scores in first.items()
    }


def _minus(after: float | None, before: float | None) -> float | None:
    return None if None in (after, before) else after - before


def _classes(result: Result) -> list[str]:
    run = next(iter(result["runs"].values()))
    return list(run[result["evaluations"][0]]["iou"])


def _label(result: Result, name: str) -> str:
    return f"{name} {summary.NOT_IN_MEAN}" if name in result["left_out"] else name


def _markdown(result: Result) -> str:
    """The text of report.md."""
    parts = ["# Result over seeds", f"{finished_note(result)}."]
    parts.append("\n".join(f"- {line}" for line in warnings(result)))
    if result["evaluations"]:
        parts += [
            f"{heading(result)}, target validation set.",
            tables.markdown(class_table(result)),
        ]
        parts += ["## Mean IoU by seed, %", tables.markdown(seed_table(result))]
        for name, shown in by_class_tables(result).items():
            parts += [f"## IoU by class and seed, %: {name}", tables.markdown(shown)]
    elif result["finished"]:
        parts.append(summary.UNSCORED)
    folders = [f"- [seed {x}]({SEED_FOLDER}{x}/{REPORT_FILE})" for x in result["finished"]]
    parts.append("\n".join(folders))
    return "\n\n".join(part for part in parts if part) + "\n"
