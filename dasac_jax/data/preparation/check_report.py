"""Print the check of a data root: one table, then one line for each kind of fault and each note."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dasac_jax.data import labels
from dasac_jax.data.preparation.check import FAULTS, Survey, share, shortened, size_text

_MIN_WIDTH = 100  # characters; rich would cut the table short, narrower terminals wrap its lines


def report(surveys: Sequence[Survey], console: Console) -> bool:
    """Print the surveys side by side. Returns whether there are no faults."""
    width = max(console.width, _MIN_WIDTH)
    wide = Console(file=console.file, width=width, force_terminal=console.is_terminal)
    wide.print(_table(surveys))

    def print_line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    faulty = 0
    for survey in surveys:
        for kind, items in survey.faults.items():
            faulty += len(items)
            print_line(f"{survey.name}: {len(items)} {kind}: {shortened(items)}")
    for survey in surveys:
        for note in survey.notes:
            print_line(f"note: {survey.name}: {note}")
    print_line(f"faults: {faulty}, see above" if faulty else "no faults")
    return not faulty


def _table(surveys: Sequence[Survey]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for survey in surveys:
        table.add_column(survey.name, justify="right", no_wrap=True)

    def row(title: str, cells: Sequence[object]) -> None:
        table.add_row(title, *map(str, cells))

    row("images", [survey.images for survey in surveys])
    row("labels", [survey.labels for survey in surveys])
    row("image sizes", [_sizes(survey.image_sizes) for survey in surveys])
    row("label sizes", [_sizes(survey.label_sizes) for survey in surveys])
    for kind in FAULTS:
        row(kind, [len(survey.faults.get(kind, ())) for survey in surveys])
    table.add_section()
    row("share of label pixels, %", ["" for _ in surveys])
    shares = [100 * share(survey.counts) for survey in surveys]
    values = [*enumerate(labels.CLASS_NAMES), (labels.IGNORE, "ignored")]
    for value, name in values:
        row(
            f"  {name}",
            [_percent(s, found[value]) for s, found in zip(surveys, shares, strict=True)],
        )
    known = [value for value, _ in values]
    others = [100 - found[known].sum() for found in shares]
    row("  other values", [_percent(s, o) for s, o in zip(surveys, others, strict=True)])
    return table


def _percent(survey: Survey, value: float) -> str:
    return f"{abs(value):.2f}" if survey.counts.any() else "-"


def _sizes(sizes: Counter) -> str:
    """The sizes, with the number of files of each if there are several, most frequent first."""
    if len(sizes) == 1:
        return size_text(next(iter(sizes)))
    lines = [f"{count} of {size_text(size)}" for size, count in sizes.most_common(4)]
    return "\n".join(lines + ([f"{len(sizes) - 4} more"] if len(sizes) > 4 else [])) or "-"
