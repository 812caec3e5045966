"""What the values of labels are taken for: classes, colours, and the id maps of a recipe."""

from __future__ import annotations

import colorsys
import difflib
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dasac_jax.data.classes import MAX_CLASSES
from dasac_jax.data.label_values import Colour, Value, text
from dasac_jax.errors import UserError
from dasac_jax.image.label_values import IGNORE
from dasac_jax.own_data import class_files
from dasac_jax.own_data.class_files import Row, Table
from dasac_jax.own_data.survey import Labels

Key = Value | tuple[int, int]
"""The first part of a pair in `data.classes.*_ids`: a value, or a range (first, last)."""

_NEAR = 24  # in each channel: how far the mixed colours of resampled maps are called near
_FAR = 32  # how far from two frequent numbers a rare one between them is taken for their mixture
_MOST_FREQUENT = 16  # values that mixtures are looked for between
_FITTING = 0.995  # of the pixels: what a table has to name to be proposed


class Meaning(NamedTuple):
    """What a value is taken for. name: the class, None where it is ignored for the reason `why`."""

    name: str | None
    why: str = ""


class Classes(NamedTuple):
    """The classes of a recipe in the order of their train ids, and their colours."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]


def ignored_values(given: Sequence[str]) -> set[Value | str]:
    """The values, colours and class names of --ignore. Raises UserError for what is none."""
    found: set[Value | str] = set()
    for word in given:
        parts = [part for part in word.strip("()# ").replace(",", " ").split() if part]
        if word.startswith("#"):
            if not re.fullmatch("#[0-9a-fA-F]{6}", word):
                raise UserError(f"--ignore {word}: a colour has six digits, as in #8040ff")
            parts = [str(byte) for byte in bytes.fromhex(word[1:])]
        if all(part.isdecimal() for part in parts) and len(parts) in (1, 3):
            numbers = tuple(map(int, parts))
            found.add(numbers if len(numbers) == 3 else numbers[0])
        elif re.fullmatch(r"[-+]?[\d.]+", word):
            raise UserError(f"--ignore {word}: label values are whole numbers from 0")
        else:
            found.add(" ".join(word.split()))
    return found


def check_ignored(
    ignored: set[Value | str], tables: Sequence[Table], found: Sequence[Labels]
) -> list[str]:
    """The values of --ignore that no label holds. Raises UserError for names that no table has."""
    names = list(dict.fromkeys(row.name for table in tables for row in table.rows))
    for name in sorted(name for name in ignored if isinstance(name, str)):
        if name not in names:
            closest = difflib.get_close_matches(name, names, n=1, cutoff=0)
            raise UserError(f"--ignore {name}: no class has this name; the closest is {closest[0]}")
    held = {value for labels in found for value in labels.pixels}
    return [text(value) for value in ignored if not isinstance(value, str) and value not in held]


def mixed_values(labels: Labels) -> list[Value]:
    """Rare values between frequent ones, as they come up where label images are resized or JPEG.

    Such a value has at most a tenth of the pixels of either, which are among the most frequent;
    colours lie near the line from one to the other, and numbers far from both, since rare ids may
    lie between others by chance.
    """
    most = labels.pixels.most_common(_MOST_FREQUENT)
    return [
        value
        for value, count in labels.pixels.items()
        if _is_mixed(value, [v for v, n in most if n >= 10 * count])
    ]


def _is_mixed(value: Value, frequent: Sequence[Value]) -> bool:
    if isinstance(value, int):
        numbers = [other for other in frequent if isinstance(other, int)]
        return bool(numbers) and min(numbers) + _FAR <= value <= max(numbers) - _FAR
    point = np.array(value, float)
    ends = [np.array(other, float) for other in frequent if not isinstance(other, int)]
    for first, last in itertools.combinations(ends, 2):
        way = last - first
        share = np.clip((point - first) @ way / (way @ way), 0, 1)
        if np.abs(first + share * way - point).max() <= _NEAR / 2:
            return True
    return False


def numbered(labels: Labels, *, ignore_given: bool) -> Table:
    """The table of labels of which nothing is known: each number is a class, or each colour.

    255 is ignored, unless the labels are a mask of 0 and 255, be it with blurred edges, or the
    user said what is ignored (ignore_given). Raises UserError where there are too many values to be
    classes.
    """
    values = list(labels.pixels)
    if len(values) > MAX_CLASSES or labels.rest:
        more = " and more" if labels.rest else ""
        listed = ", ".join(text(value) for value, _ in labels.pixels.most_common(3))
        raise UserError(
            f"the labels hold {len(values)} values{more}, such as {listed}: say which are classes "
            f"by --classes FILE or one of the tables {', '.join(class_files.known())}"
        )
    numbers = sorted(value for value in values if isinstance(value, int))
    colours = sorted(value for value in values if not isinstance(value, int))
    frequent = {value for value, _ in labels.pixels.most_common(2)}
    is_mask = frequent == {0, IGNORE} and (len(values) == 2 or bool(mixed_values(labels)))
    keep = ignore_given or is_mask
    rows = [
        Row("unlabelled", IGNORE, None, ignored=True)
        if number == IGNORE and not keep
        else Row(f"class {number}", number, None)
        for number in numbers
    ]
    rows += [Row(f"class {i}", None, colour) for i, colour in enumerate(colours, len(numbers))]
    return Table("", tuple(rows))


def meanings(labels: Labels, table: Table, ignored: set[Value | str]) -> dict[Value, Meaning]:
    """What each value that occurs is taken for, the most frequent first."""
    rows = Lookup(table, labels)
    return {
        value: _meaning(rows.row(value), value, ignored, rows)
        for value, _ in labels.pixels.most_common()
    }


class Lookup:
    """The rows of a table for values as files hold them, with numbers of objects or without."""

    def __init__(self, table: Table, labels: Labels) -> None:
        self.table = table
        self._by_id, self.by_colour = table.by_id(), table.by_colour()
        numbers = [value for value in labels.pixels if isinstance(value, int)]
        self.has_numbers = bool(numbers)
        self.has_colours = len(numbers) < len(labels.pixels)
        beyond = table.instances and max(numbers, default=0) > max(max(self._by_id), IGNORE)
        self.has_instances = bool(beyond)

    def row(self, value: Value) -> Row | None:
        """The row of a value, None where the table has none."""
        if not isinstance(value, int):
            return self.by_colour.get(value)
        divisor, plain = self.table.instances, self.table.plain_ids
        if self.has_instances and not (plain and value < divisor):
            value //= divisor
        return self._by_id.get(value)

    def keys(self, name: str, ignored: set[Value | str]) -> list[Key]:
        """What stands for a class in files of this kind, but for what is ignored."""
        keys: list[Key] = []
        for row in self.table.rows:
            if row.name != name or row.ignored:
                continue
            if self.has_numbers and row.id is not None:
                keys += self._number_keys(row.id)
            if self.has_colours and row.colour and self.by_colour[row.colour].name == name:
                keys.append(row.colour)
        return [key for key in dict.fromkeys(keys) if key not in ignored]

    def _number_keys(self, number: int) -> list[Key]:
        if not self.has_instances:
            return [number]
        first = number * self.table.instances
        ranges = [(first, first + self.table.instances - 1)]
        return [number, *ranges] if self.table.plain_ids else ranges


def classes(source: Labels, found: dict[Value, Meaning], table: Table) -> Classes:
    """The classes of the source that have pixels, in the table's order.

    Raises UserError where these are fewer than two.
    """
    present = {meaning.name for meaning in found.values() if meaning.name is not None}
    if len(present) < 2:
        raise UserError(_too_few(source, found, present))
    names = tuple(name for name in table.names if name in present)
    if len(names) > MAX_CLASSES:
        raise UserError(f"the labels have {len(names)} classes, at most {MAX_CLASSES} work")
    colours = {row.name: row.colour for row in reversed(table.rows) if row.colour}
    used = set(colours.values())
    palette = []
    for place, name in enumerate(names):
        colour = colours.get(name) or next(c for c in _distinct(place) if c not in used)
        used.add(colour)
        palette.append(colour)
    return Classes(names, tuple(palette))


def id_map(
    labels: Labels, table: Table, names: Sequence[str], ignored: set[Value | str]
) -> tuple[tuple[Key, str], ...]:
    """The pairs of `data.classes.source_ids` or `target_ids` for the classes that occur there."""
    lookup = Lookup(table, labels)
    rows = (lookup.row(value) for value in labels.pixels)
    present = {row.name for row in rows if row is not None and not row.ignored}
    return tuple(
        (key, name) for name in names if name in present for key in lookup.keys(name, ignored)
    )


def fitting_tables(labels: Labels) -> list[str]:
    """The known tables that name nearly all pixels of labels, the one with least else first.

    Of the classes that a table finds, at least two have to be ones that it does not ignore.
    """
    fitting = []
    for name in class_files.known():
        table = class_files.read(name)
        rows = Lookup(table, labels)
        found = {value: row for value in labels.pixels if (row := rows.row(value))}
        named = sum(labels.pixels[value] for value in found.keys() | {IGNORE})
        seen = {row.name for row in found.values()}
        kept = {row.name for row in found.values() if not row.ignored}
        if len(kept) > 1 and named >= _FITTING * max(labels.total, 1):
            fitting.append((-len(seen) / len({row.name for row in table.rows}), name))
    return [name for _, name in sorted(fitting)]


def _meaning(row: Row | None, value: Value, ignored: set[Value | str], rows: Lookup) -> Meaning:
    if value in ignored or (row is not None and row.name in ignored):
        return Meaning(None, f"{row.name}, --ignore" if row and row.name else "--ignore")
    if row is None:
        near = _nearest(value, rows.by_colour)
        return Meaning(None, f"in no table, near {near}" if near else "in no table")
    return Meaning(None, row.name) if row.ignored else Meaning(row.name)


def _nearest(value: Value, by_colour: dict[Colour, Row]) -> str | None:
    """The class whose colour is near a colour, None where none is."""
    if isinstance(value, int) or not by_colour:
        return None

    def distance(colour: Colour) -> int:
        return max(abs(a - b) for a, b in zip(colour, value, strict=True))

    colour = min(by_colour, key=distance)
    return by_colour[colour].name if distance(colour) <= _NEAR else None


def _too_few(source: Labels, found: dict[Value, Meaning], present: set[str]) -> str:
    shares = ", ".join(
        f"{text(value)} ({100 * count / max(source.total, 1):.1f} %)"
        for value, count in source.pixels.most_common(8)
    )
    if present:
        value = next(value for value, meaning in found.items() if meaning.name is not None)
        return (
            f"one class only: of the label values {shares} only {text(value)} stands for a class, "
            f"{next(iter(present))!r}; two are needed"
        )
    fitting = fitting_tables(source)
    advice = f"--classes {' or '.join(fitting)} names them" if fitting else "give their table"
    return f"no label value stands for a class: the labels hold {shares}; {advice}"


def _distinct(start: int):
    """Colours that are easily told apart, without end."""
    place = start
    while True:
        # Steps of the golden ratio never come close to an earlier hue soon.
        hue = place * 0.61803398875 % 1
        light = (0.9, 0.65, 0.75)[place % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, light)
        yield round(255 * red), round(255 * green), round(255 * blue)
        place += 1
