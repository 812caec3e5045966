"""Numbers, tables and facts as text."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from dasac_jax.reporting import tables

TABLE = tables.Table(
    ["class", "a|b", "B"], [["road", "1.0", ""], ["[red]x", "–", "3.0"]], [["mean", "", "2.0"]]
)


@pytest.mark.parametrize(
    ("score", "options", "text"),
    [
        (0.5432, {}, "54.3"),
        (np.float64(1), {"digits": 2}, "100.00"),
        (None, {}, "–"),
        (float("nan"), {"missing": "nan", "sign": "+"}, "nan"),
        (0.012, {"sign": "+"}, "+1.2"),
        (-0.012, {"sign": "+"}, "-1.2"),
        (0.0, {"sign": "+"}, "+0.0"),
    ],
)
def test_percent(score, options, text):
    assert tables.percent(score, **options) == text


def test_markdown_has_bold_totals_and_escapes_what_would_part_cells():
    assert tables.markdown(TABLE).splitlines() == [
        "| class | a\\|b | B |",
        "| --- | ---: | ---: |",
        "| road | 1.0 |  |",
        "| [red]x | – | 3.0 |",
        "| **mean** |  | **2.0** |",
    ]


def test_the_terminal_has_totals_apart_and_shows_markup_as_it_is():
    out = io.StringIO()
    Console(file=out, width=60).print(tables.terminal(TABLE, Text("[bold]title")))
    title, _, header, _, road, red, rule, mean, _ = out.getvalue().splitlines()
    assert title.strip() == "[bold]title" and rule.startswith("├")
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in (road, red, mean)]
    assert cells == [*TABLE.lines, *TABLE.totals]
    assert [cell.strip() for cell in header[1:-1].split("┃")] == TABLE.header


def test_a_fact_in_one_line():
    assert tables.one_line({"a": {"b": [1, 2.5000001], "c": None}, "d": "x"}) == (
        "a b 1, 2.5, c None, d x"
    )
    assert tables.one_line(123456.7) == "1.2346e+05"
