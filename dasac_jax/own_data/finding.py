"""The image files that a user names: by folders, files or patterns."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dasac_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")


class Found(NamedTuple):
    """A file, and the names of the folders between it and what the user named."""

    path: Path
    folders: tuple[str, ...]


def find(places: Sequence[str | Path], option: str) -> list[Found]:
    """All image files below folders, and those that are named or fit a pattern, in natural order.

    Links to folders are followed, each folder being read once; hidden files are left out. option:
    the flag that the places were given with, for messages. Raises UserError where a place does not
    exist or no image file is found.
    """
    files: dict[Path, Found] = {}
    others: Counter[str] = Counter()
    for place in _expanded(places, option):
        below = _walk(place) if place.is_dir() else [Found(place, place.parent.parts[-3:])]
        for found in below:
            suffix = found.path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                files.setdefault(found.path, found)
            else:
                others[suffix or "no suffix"] += 1
    if not files:
        named = ", ".join(map(str, places[:3])) + (" …" if len(places) > 3 else "")
        there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
        advice = f"; there are only other files ({there})" if there else ""
        if others[".json"]:
            advice += ": polygons have to be drawn as label images first, by the data set's tools"
        raise UserError(f"{option}: no image files in {named}{advice}")
    return sorted(files.values(), key=lambda found: _natural(found.path))


def _expanded(places: Sequence[str | Path], option: str) -> Iterable[Path]:
    """Absolute paths of what exists; patterns are replaced by what fits them."""
    for place in places:
        path = Path(os.path.abspath(place))
        if path.exists():
            yield path
            continue
        fitting = sorted(glob.glob(os.path.abspath(place), recursive=True))
        if not fitting:
            raise UserError(f"{option}: there is no file or folder {place}")
        yield from map(Path, fitting)


def _walk(folder: Path) -> Iterable[Found]:
    seen: set[str] = set()
    for current, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:  # a link that leads back to a folder above it
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        folders = Path(current).relative_to(folder).parts
        for name in files:
            if not name.startswith("."):
                yield Found(Path(current, name), folders)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A key in whose order 2 comes before 10."""
    digits, parts, text = False, [], ""
    for character in str(path) + "\0":
        if text and (character.isdecimal() != digits or character == "\0"):
            parts.append((0, int(text), "") if digits else (1, 0, text))
            text = ""
        digits = character.isdecimal()
        text += character
    return parts
