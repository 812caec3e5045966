"""Tables of scores for the terminal and for markdown, and numbers and facts as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import rich.table
from rich.text import Text


class Table(NamedTuple):
    """A table as text: a line for each class, then the totals, which are shown in bold.

    The first cell of a line says what it is of; the others hold numbers.
    """

    header: list[str]
    lines: list[list[str]]
    totals: list[list[str]]


def percent(
    score: float | None, *, digits: int = 1, missing: str = "–", sign: Literal["", "+"] = ""
) -> str:
    """A score of 0..1 in %, `missing` for None and nan.

    With sign="+" a difference of two scores, in points.
    """
    if score is None or math.isnan(score):
        return missing
    return f"{100 * score:{sign}.{digits}f}"


def mean_title(name: str, present: Sequence[int], of: int) -> str:
    """A mean's name with over how many classes it is: "mean over 1 of 2 classes".

    name: such as "mean over 2 classes" or "mean IoU". present: how many classes have a value, of
    one result or of several. of: of how many; where all have one, the name stays as it is.
    """
    if all(count == of for count in present):
        return name
    shown = present[:1] if len(set(present)) == 1 else present
    what = f"over {' / '.join(map(str, shown))} of {of} classes"
    whole = f"over {of} classes"
    return name.replace(whole, what) if whole in name else f"{name} {what}"


def markdown(table: Table) -> str:
    """The lines of a table in markdown, without a line break at the end."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    bold = [[f"**{cell}**" if cell else "" for cell in line] for line in table.totals]
    rows = [table.header, rule, *table.lines, *bold]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def terminal(table: Table, title: str | Text) -> rich.table.Table:
    """A table to print.

    Cells that look like rich's markup are shown as they are; a title is only where it is a Text.
    """
    shown = rich.table.Table(title=title, title_justify="left")
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if index else "left", no_wrap=True)
    for line in table.lines:
        shown.add_row(*map(Text, line))
    shown.add_section()
    for line in table.totals:
        shown.add_row(*map(Text, line), style="bold")
    return shown


def one_line(fact: Any) -> str:
    """A JSON value in words: floats with five digits, what lies in it between commas."""
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {one_line(entry)}" for name, entry in fact.items())
    if isinstance(fact, list):
        return ", ".join(map(one_line, fact))
    return f"{fact:.5g}" if isinstance(fact, float) else str(fact)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
