"""Writes report.html of a run of several seeds: one file that loads nothing, as each seed's own."""

from __future__ import annotations

import html
from pathlib import Path

from dasac_jax.files import PAGE_FILE, SEED_FOLDER, write_file
from dasac_jax.reporting import page_style, seed_scores, spread, summary, tables
from dasac_jax.reporting.seed_scores import Result


def write(folder: Path, result: Result) -> None:
    """Write the page from what `seed_scores.collect` gives. Raises UserError where that fails."""
    title = f"Run {folder.resolve().name}, seeds"
    page = page_style.document(title, seed_scores.finished_note(result), _parts(result))
    write_file(folder / PAGE_FILE, page)


def _parts(result: Result) -> list[str]:
    parts = []
    told = "".join(
        f'<li class="less">{html.escape(line)}</li>\n' for line in seed_scores.warnings(result)
    )
    if told:
        parts.append(_section("Warnings", f"<ul>\n{told}</ul>\n"))
    if not result["evaluations"]:
        return [*parts, f'<p class="soft">{summary.UNSCORED}</p>\n']
    tiles = ""
    for name in seed_scores.columns_of(result):
        found = spread.of(run[name]["miou"] for run in result["runs"].values())
        mean = tables.percent(found.mean, sign="+" if name == seed_scores.GAIN else "")
        apart = "" if found.deviation is None else f"± {tables.percent(found.deviation)}"
        chosen = ' class="chosen"' if name == "adapted" else ""
        tiles += (
            f'<li{chosen}><span class="soft">{html.escape(name)}</span>'
            f'<strong>{mean}</strong><span class="soft">{apart}</span></li>\n'
        )
    parts.append(f'<ul class="tiles" aria-label="Mean IoU in percent">\n{tiles}</ul>\n')
    heading = f"{seed_scores.heading(result)}, target validation set"
    parts.append(_section(heading, _table(seed_scores.class_table(result))))
    parts.append(_section("Mean IoU by seed, %", _table(seed_scores.seed_table(result))))
    each = "".join(
        f"<h3>{html.escape(name)}</h3>\n{_table(shown)}"
        for name, shown in seed_scores.by_class_tables(result).items()
    )
    content = f"<details><summary>Every seed, every class</summary>\n{each}</details>\n"
    parts.append(_section("IoU by class and seed, %", content))
    folders = "".join(f"<li>{SEED_FOLDER}{seed}/{PAGE_FILE}</li>\n" for seed in result["finished"])
    parts.append(_section("The seeds' own pages", f"<ul>\n{folders}</ul>\n"))
    return parts


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>\n{content}</section>\n"


def _table(shown: tables.Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in shown.header)
    body, foot = ("".join(map(_row, lines)) for lines in (shown.lines, shown.totals))
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table">\n'
        f'<table class="scores">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n'
        f"<tfoot>\n{foot}</tfoot>\n</table></div>\n"
    )


def _row(cells: list[str]) -> str:
    name, *numbers = map(html.escape, cells)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{x}</td>" for x in numbers)}</tr>\n'
