"""Files that say which value or colour stands for which class: text, CSV or JSON.

The tables of known data sets come along in the folder class_tables. Each is a CSV file with its
source in its first lines.
"""

import csv
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dasac_jax.errors import UserError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

TABLES = Path(__file__).parent / "class_tables"

_IGNORED = {"ignore", "ignored", "void", "unlabeled", "unlabelled", "no label", "no class"}
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_FRACTION = re.compile(r"[-+]?\d*\.\d+")
_NAME_KEYS = ("name", "class", "class_name", "label", "readable")
_ID_KEYS = ("id", "label_id", "value", "index", "train_id", "trainid")
_COLOUR_KEYS = ("color", "colour", "rgb")
_COLUMNS = (("red", "r"), ("green", "g"), ("blue", "b"))


class Row(NamedTuple):
    """One value or colour of label files, and its class.

    id: 0 to 65535, or None where only the colour is known. colour: or None where only the id is.
    ignored: whether these pixels are neither trained nor scored.
    """

    name: str
    id: int | None
    colour: Colour | None
    ignored: bool = False


class Table(NamedTuple):
    """The classes of label files, in the order of their train ids.

    endings: how the names of the data set's label files end, the first that exist being meant.
    instances: N where files that tell objects apart hold id × N + number of the object, else 0.
    plain_ids: whether in such files values below N are ids without a number.
    """

    title: str
    rows: tuple[Row, ...]
    endings: tuple[str, ...] = ()
    instances: int = 0
    plain_ids: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are trained, each once."""
        return tuple(dict.fromkeys(row.name for row in self.rows if not row.ignored))

    def by_id(self) -> dict[int, Row]:
        """The row of each id."""
        return {row.id: row for row in self.rows if row.id is not None}

    def by_colour(self) -> dict[Colour, Row]:
        """The row of each colour: that of the first class which has it, or of ignored pixels."""
        found: dict[Colour, Row] = {}
        for row in sorted(self.rows, key=lambda row: row.ignored):
            if row.colour is not None:
                found.setdefault(row.colour, row)
        return found


def known() -> tuple[str, ...]:
    """The names of the tables that come along."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.csv")))


def read(name: str | Path) -> Table:
    """The table of a known data set, or of a file .csv, .json or of plain text.

    A line of text or CSV gives a name and, in any order, nothing (the ids are then 0, 1, …), an
    id, a colour (three numbers or #rrggbb), or both. Several lines with one name make one class
    of several values. Rows called void, unlabeled or ignored are ignored, and those with "yes" in a
    column `ignored`. Raises UserError naming file and line for what is none of this.
    """
    path = TABLES / f"{name}.csv"
    if str(name) not in known():
        path = Path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if path.exists():
            raise UserError(f"cannot read the class file {path}: {error}") from error
        close = difflib.get_close_matches(str(name), known(), 1)
        advice = f"did you mean {close[0]}?" if close else f"known tables: {', '.join(known())}"
        raise UserError(f"--classes: there is no class file {path}; {advice}") from error
    facts: dict[str, str] = {}
    if path.suffix.lower() == ".json":
        rows = list(_json_rows(path, text))
    else:
        facts, rows = _facts(text), list(_text_rows(path, text))
    coded = facts.get("instances", "")
    table = Table(
        facts.get("title", str(name)),
        tuple(rows),
        tuple(facts.get("endings", "").split()),
        int((re.search(r"\d+", coded) or ["0"])[0]),
        "id, or" in coded,
    )
    _check(path, table)
    return table


def _facts(text: str) -> dict[str, str]:
    """What a table's comments say, as in "# title: Cityscapes"."""
    return dict(re.findall(r"^# (\w+): (.*)$", text, re.MULTILINE))


def _text_rows(path: Path, text: str) -> Iterator[Row]:
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith(("# ", "//")) and line.strip() != "#"
    ]
    commas = bool(lines) and all(re.search("[,;]", line) for _, line in lines)
    separator = ";" if commas and all(";" in line for _, line in lines) else ","
    parsed = []
    for number, line in lines:
        fields = next(csv.reader([line], delimiter=separator)) if commas else re.split(r"\s+", line)
        parsed.append((number, [field.strip() for field in fields]))
    header = _header(parsed[0][1]) if commas and parsed else None
    if header is not None:
        for number, fields in parsed[1:]:
            values = dict(zip(header, fields, strict=False))
            yield _row_of_keys(path, f"line {number}", values, None)
        return
    numbered = any(_numbers(fields) for _, fields in parsed)
    for place, (number, fields) in enumerate(parsed):
        yield _row_of_fields(path, number, fields, None if numbered else place)


def _header(fields: Sequence[str]) -> list[str] | None:
    """The names of the columns, where the first line of a CSV file gives them."""
    lowered = [field.lower() for field in fields]
    return lowered if set(lowered) & set(_NAME_KEYS) else None


def _numbers(fields: Iterable[str]) -> list[int]:
    """The numbers among the fields of a line; a colour #rrggbb gives three."""
    found: list[int] = []
    for field in fields:
        if match := _HEX.fullmatch(field):
            found += bytes.fromhex(match[1])
        elif re.fullmatch(r"-?\d+", field):
            found.append(int(field))
    return found


def _row_of_fields(path: Path, number: int, fields: Sequence[str], place: int | None) -> Row:
    """A row from a name and numbers in any order. place: the id where no line has numbers."""
    numeric = [field for field in fields if _numbers([field])]
    words = [field for field in fields if field and field not in numeric]
    numbers = _numbers(fields)
    if broken := [word for word in words if _FRACTION.fullmatch(word)]:
        raise UserError(f"class file {path}, line {number}: {broken[0]} is no id: ids are whole")
    if not words or len(numbers) not in (0, 1, 3, 4):
        raise UserError(
            f"class file {path}, line {number}: a name, and an id, a colour of three numbers or "
            f"both, are needed, got {' '.join(fields)!r}"
        )
    id_ = numbers[0] if len(numbers) == 1 else None
    colour = tuple(numbers) if len(numbers) == 3 else None
    if len(numbers) == 4:
        colour_first = len(numeric) == 2 and numeric[0].startswith("#")
        id_ = numbers[3] if colour_first else numbers[0]
        colour = tuple(numbers[:3] if colour_first else numbers[1:])
    name = " ".join(words)
    return _row(path, f"line {number}", name, place if id_ is None else id_, colour, None)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"class file {path} is no JSON: {error}") from error
    for key in ("labels", "classes", "categories", "id2label"):
        if isinstance(content, Mapping) and isinstance(content.get(key), list | Mapping):
            content = content[key]
    if isinstance(content, Mapping):
        content = [_entry(key, value) for key, value in content.items()]
    if not isinstance(content, list):
        raise UserError(f"class file {path}: a list or an object of classes is needed")
    for place, entry in enumerate(content):
        values = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(values, Mapping):
            raise UserError(f"class file {path}, entry {place}: no class: {entry!r}")
        lowered = {str(key).lower(): value for key, value in values.items()}
        yield _row_of_keys(path, f"entry {place}", lowered, place)


def _entry(key: str, value: Any) -> Any:
    """An entry of a JSON object: {"road": 7}, {"7": "road"}, {"road": [128, 64, 128]}, …."""
    if isinstance(value, str):
        return {"name": value, "id": key}
    if isinstance(value, list):
        return {"name": key, "color": value, "id": None}
    return {"name": key, **value} if isinstance(value, Mapping) else {"name": key, "id": value}


def _row_of_keys(path: Path, where: str, values: Mapping[str, Any], place: int | None) -> Row:
    """A row from named values. place: the id where none is named."""

    def first(keys: Iterable[str]) -> Any:
        return next((values[key] for key in keys if values.get(key) not in (None, "")), None)

    colour = first(_COLOUR_KEYS)
    if isinstance(colour, str):
        colour = _numbers(re.split(r"[\s,;()\[\]]+", colour))
    elif colour is None:
        parts = [first(keys) for keys in _COLUMNS]
        colour = None if None in parts else parts
    ids = [key for key in _ID_KEYS if key in values]
    id_ = first(_ID_KEYS) if ids else place
    said = str(first(("ignored", "ignore", "ignoreineval")) or "no").lower()
    ignored = said not in ("no", "false", "0") or values.get("evaluate") is False
    return _row(path, where, first(_NAME_KEYS), id_, colour, ignored or None)


def _row(path: Path, where: str, name: Any, id_: Any, colour: Any, ignored: bool | None) -> Row:
    """A row, its parts checked. ignored: None where the name says it."""
    name = " ".join(str(name or "").split())
    if not name:
        raise UserError(f"class file {path}, {where}: the class has no name")
    try:
        id_ = None if id_ is None else int(id_)
        colour = None if colour is None else tuple(map(int, colour))
    except (TypeError, ValueError) as error:
        raise UserError(f"class file {path}, {where}: {error}") from error
    if id_ is not None and not 0 <= id_ <= 65535:
        raise UserError(f"class file {path}, {where}: id {id_} is not from 0 to 65535")
    if colour is not None and not (len(colour) == 3 and all(0 <= v <= 255 for v in colour)):
        raise UserError(
            f"class file {path}, {where}: {colour} is no colour of three numbers from 0 to 255"
        )
    return Row(name, id_, colour, name.lower() in _IGNORED if ignored is None else ignored)


def _check(path: Path, table: Table) -> None:
    """Raise UserError for fewer than two classes, and for what stands for two of them.

    Where ids tell classes apart, they may share a colour, as in Cityscapes' own table.
    """
    if len(table.names) < 2:
        raise UserError(
            f"class file {path} names {len(table.names)} classes: at least two are needed"
        )
    seen: dict[int | Colour, str] = {}
    for row in table.rows:
        key = row.colour if row.id is None else row.id
        if key is not None and seen.setdefault(key, row.name) != row.name:
            kind = "colour" if row.id is None else "id"
            raise UserError(
                f"class file {path}: {kind} {key} stands for {seen[key]!r} and {row.name!r}"
            )
