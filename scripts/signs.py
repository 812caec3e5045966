"""The label-free signs of finished runs beside their scores, as a table in markdown.

python scripts/signs.py RUN [RUN …]

A run by --seeds gives a line for each of its seeds. What the signs mean: docs/when_it_fails.md.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from dasac_jax.cli import Parser, code_of
from dasac_jax.files import METRICS_FILE, seed_folders
from dasac_jax.method import signs
from dasac_jax.reporting import class_shares, metrics_log, summary, tables

_TOLD = (*signs.PARTS, "labelled", "teacher_distance")
_SCORES = ["run", "baseline", "adapted", "gain"]
_CHANGES = ["vanished", "grown", "least ratio", "largest ratio"]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""

    def act() -> None:
        given = _parser().parse_args(arguments).runs
        folders = [x for run in given for x in (seed_folders(run).values() or [run])]
        lines = [_line(x) for x in folders if (x / METRICS_FILE).exists() or x in given]
        header = [*_SCORES, *_CHANGES, *(f"{name}, begin → end" for name in _TOLD)]
        print(tables.markdown(tables.Table(header, lines, [])))

    return code_of(act, "nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="signs.py", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="work directories")
    return parser


def _line(folder: Path) -> list[str]:
    result = summary.read(folder)
    miou = summary.totals(result).get("mean IoU", {})
    before, after = miou.get(summary.reference(miou)), miou.get("adapted")
    gain = None if None in (before, after) else after - before
    changed = class_shares.of_result(result)
    lines = metrics_log.read(folder)
    return [
        str(folder),
        tables.percent(before),
        tables.percent(after),
        tables.percent(gain, sign="+"),
        ", ".join(x.name for x in changed if x.after < x.before) or "–",
        ", ".join(x.name for x in changed if x.after > x.before) or "–",
        *_ratios(result),
        *(_ends(lines, name) for name in _TOLD),
    ]


def _ratios(result: dict) -> list[str]:
    """How many times its share the class has that lost, and that won, the most."""
    if class_shares.ENTRY not in result:
        return ["–", "–"]
    shares = result[class_shares.ENTRY]
    ratios = {
        name: shares[class_shares.AFTER][name] / share
        for name, share in shares[class_shares.BEFORE].items()
        if share >= class_shares.LEAST_BEFORE
    }
    ends = (min(ratios, key=ratios.get), max(ratios, key=ratios.get)) if ratios else ()
    return [f"{ratios[name]:.2f} ({name})" for name in ends] or ["–", "–"]


def _ends(lines: list[metrics_log.Line], name: str) -> str:
    """The first and the last value that the adaptation recorded."""
    _, values = metrics_log.curve(lines, "adapt", name)
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    digits = 3 - max(0, math.ceil(math.log10(max(abs(values[0]), abs(values[-1]), 1e-9))))
    return " → ".join(f"{value:.{max(digits, 0)}f}" for value in (values[0], values[-1]))


if __name__ == "__main__":
    sys.exit(main())
