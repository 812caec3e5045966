"""The table of label values: what was found, how much of it, and the class that it would be."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dasac_jax.data.label_values import Colour, Value, text
from dasac_jax.own_data.proposal import Classes, Meaning
from dasac_jax.own_data.survey import Labels

_MOST_UNNAMED = 8  # values of no class that have a line of their own
_WIDTH = 100


def show(
    console: Console,
    title: str,
    labels: Labels,
    meanings: Mapping[Value, Meaning],
    classes: Classes,
) -> None:
    """Print a line for each value, the most frequent first, and one for the many rare ones."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("value", "% of pixels", "images", "", "class"):
        table.add_column(name, justify="right" if name in ("% of pixels", "images") else "left")
    total, unnamed, rest, rare = max(labels.total, 1), 0, labels.rest, 0
    palette = dict(zip(classes.names, classes.palette, strict=True))
    for value, meaning in meanings.items():
        if meaning.name is None and meaning.why.startswith("in no"):
            unnamed += 1
            if unnamed > _MOST_UNNAMED:
                rest, rare = rest + labels.pixels[value], rare + 1
                continue
        colour = palette.get(meaning.name) if meaning.name else None
        name = meaning.name if colour else f"– ({_why(meaning)})"
        share = _percent(labels.pixels[value] / total)
        table.add_row(text(value), share, str(labels.images[value]), _patch(colour), Text(name))
    if rest:
        more = f"{rare} more" if not labels.rest else f"{rare} more and rare ones"
        table.add_row(more, _percent(rest / total), "", "", Text("– (in no table)"))
    wide = Console(
        file=console.file,
        width=max(console.width, _WIDTH),
        force_terminal=console.is_terminal,
    )
    wide.print(table)


def _why(meaning: Meaning) -> str:
    if meaning.name:
        return f"{meaning.name}, not in the source"
    return f"ignored: {meaning.why}"


def _patch(colour: Colour | None) -> Text:
    """A few cells of a terminal in the colour of a class."""
    if colour is None:
        return Text("")
    return Text("    ", style=f"on rgb({','.join(map(str, colour))})")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}" if share >= 0.00005 else "< 0.01"
