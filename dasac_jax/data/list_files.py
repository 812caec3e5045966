"""List files: an image, or an image and its label, in each line, as other programs write them.

Separators, quotes and line ends differ between programs, and paths may hold any of these
characters. What a line means is therefore decided by which files exist: the usual reading comes
first.
"""

import codecs
import csv
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dasac_jax.data.pairs import Pair
from dasac_jax.errors import UserError

Find = Callable[[str], str | None]
"""Returns the file that a path in a list stands for, None where there is none."""

IsFile = Callable[[str], bool]

_SEPARATORS = (",", ";")  # tried after tabs and spaces
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Line(NamedTuple):
    """A line of a list: its number from 1, and its paths as `find` gives them.

    A path that was not found stands there as it is written, its separators made "/".
    """

    number: int
    image: str
    label: str | None
    image_found: bool


def read(path: str | os.PathLike, find: Find, find_label: Find | None = None) -> Iterator[Line]:
    """The lines of a list file in order, without blank lines and those that begin with "#".

    Between image and label stand spaces, a tab, a comma or a semicolon. Quotes as in CSV keep a
    path together; without them spaces are a part of a path where the files say so. UTF-8 with or
    without byte order mark, UTF-16 with one, and line ends of all systems are read. find: looks for
    an image; find_label: for a label. By default labels are not looked for.

    Raises UserError naming the file where it cannot be read or is empty, and the line where it is
    neither one path nor two.
    """
    empty = True
    for number, text in enumerate(_lines(path), start=1):
        text = text.strip()
        line = _line(number, text, find, find_label)
        if not text or (text.startswith("#") and not (line and line.image_found)):
            continue
        if line is None:
            raise UserError(
                f"list file {path}, line {number}: `image` or `image label` expected, got "
                f'{text!r}; write paths with spaces in quotes: "my images/1.png"'
            )
        empty = False
        yield line
    if empty:
        raise UserError(f"list file {path} is empty")


def read_pairs(
    path: str | os.PathLike, root: str | os.PathLike, is_file: IsFile, *, labelled: bool = True
) -> tuple[Pair, ...]:
    """The pairs of a list file, see `read`, as paths relative to the data root.

    Absolute paths below the root become relative, too. is_file: whether there is a file of a path
    relative to the root. labelled: whether labels are wanted; otherwise none is looked for.

    Raises UserError with file and line for lines that are not one or two paths, for absolute paths
    outside the root, and for images listed twice; names the file when it is unreadable or empty.
    """
    absolute_root = os.path.abspath(root)

    def find(listed: str) -> str | None:
        for spelling in spellings(listed):
            if os.path.isabs(spelling):
                spelling = os.path.relpath(spelling, absolute_root)
                if spelling.startswith(".."):
                    continue
            if is_file(spelling):
                return spelling
        return None

    lines: dict[str, int] = {}
    pairs = []
    for line in read(path, find, find if labelled else None):
        where = f"list file {path}, line {line.number}"
        outside = f"/{line.image}"
        if not line.image_found and os.path.isfile(outside):
            raise UserError(
                f"{where}: {outside} lies outside of {root}: paths relative to this, the data "
                "root, are needed"
            )
        if line.image in lines:
            first = lines[line.image]
            raise UserError(f"{where}: {line.image} is listed in line {first} already")
        lines[line.image] = line.number
        pairs.append((line.image, line.label if labelled else None))
    return tuple(pairs)


def spellings(path: str) -> list[str]:
    """The paths, with "/" between their parts, that a path in a list may stand for, likely first.

    "./" and the like are resolved. A "/" in front means the folder that the other paths are
    relative to, and backslashes separate folders as on Windows, where there is no such file.
    """
    found = []
    for written in (path, path.replace("\\", "/")):
        normal = posixpath.normpath(written)
        found += [normal, normal.lstrip("/")]
    return [text for text in dict.fromkeys(found) if text]


def _lines(path: str | os.PathLike) -> list[str]:
    try:
        content = Path(path).read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"cannot read list file {path}: {error}"
            + ("; save it as UTF-8" if isinstance(error, UnicodeError) else "")
        ) from error
    if "\0" in text:
        raise UserError(f"cannot read list file {path}: it is no text; save it as UTF-8")
    return re.split("\r\n|\r|\n", text)


def _line(number: int, text: str, find: Find, find_label: Find | None) -> Line | None:
    """What a line says, None where it is neither one path nor two."""
    usual = _usual(text)
    for way in filter(_is_line, _ways(text)):
        image, label = way if len(way) == 2 else (way[0], None)
        found = find(image)
        if found is None:
            continue
        found_label = find_label(label) if label and find_label else None
        if way == usual or found_label or not (label and find_label):
            return Line(number, found, found_label or (label and spellings(label)[-1]), True)
    if not _is_line(usual):
        return None
    image, label = usual if len(usual) == 2 else (usual[0], None)
    return Line(number, spellings(image)[-1], label and spellings(label)[-1], False)


def _is_line(paths: list[str]) -> bool:
    return len(paths) in (1, 2) and all(paths)


def _usual(text: str) -> list[str]:
    """The paths of a line with tabs, else spaces, between them."""
    if "\t" in text:
        return _fields(text, "\t")
    return _fields(text, " ")


def _ways(text: str) -> Iterator[list[str]]:
    """The paths that a line may mean, likely ways to read it first."""
    yield _usual(text)
    yield _fields(text.replace("\t", " "), " ")
    yield [text]
    for separator in _SEPARATORS:
        if separator in text:
            yield _fields(text, separator)
    for space in re.finditer(r"\s+", text):
        yield [text[: space.start()], text[space.end() :]]
    if " #" in text:
        yield from _ways(text[: text.index(" #")].strip())


def _fields(text: str, separator: str) -> list[str]:
    try:
        (fields,) = csv.reader([text], delimiter=separator, skipinitialspace=True)
    except (csv.Error, ValueError):
        return []
    return [field.strip() for field in fields]
