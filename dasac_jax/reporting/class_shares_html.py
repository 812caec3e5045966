"""The part of report.html on classes that vanished or grew; see `class_shares`."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from dasac_jax.reporting import class_shares, tables


def section(result: Mapping[str, Any]) -> Iterator[str]:
    """Warnings and a table as HTML; nothing where a run has no shares."""
    shown = class_shares.table(result)
    if shown is None:
        return
    warnings = "".join(
        f'<li class="less">{html.escape(str(change))}</li>\n'
        for change in class_shares.of_result(result)
    )
    listed = f'<ul aria-label="Warnings">\n{warnings}</ul>\n' if warnings else ""
    note = "Share of the pixels that are predicted on the target's training images, in %."
    yield (
        "<section><h2>Predicted pixels by class</h2>\n"
        f"{listed}<details{' open' if warnings else ''}><summary>All classes</summary>\n"
        f'<p class="soft">{note}</p>\n{_table(shown)}</details></section>\n'
    )


def _table(shown: tables.Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in shown.header)
    body = ""
    for name, *cells in shown.lines:
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        body += f'<tr><th scope="row">{html.escape(name)}</th>{row}</tr>\n'
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
