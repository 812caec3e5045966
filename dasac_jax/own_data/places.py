"""The image files that a user names: by folders, files or patterns."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dasac_jax.data import finding
from dasac_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")
LABEL_SUFFIXES = (".png", ".tif", ".tiff")
"""Of formats that keep label values as they are."""

_PARENTS = 3  # folders above a file that is given by itself: its label's may be called alike


class Found(NamedTuple):
    """A file, and the names of the folders between it and what the user named."""

    path: Path
    folders: tuple[str, ...]


def find(places: Sequence[str], suffixes: Sequence[str], option: str) -> list[Found]:
    """The files below folders, and those that are named or fit a pattern, in natural order.

    Folders are searched by `data.finding`. suffixes: of the files that are meant, in lower case.
    option: the flag that the places were given with, for messages. Raises UserError where a place
    does not exist, or there is no such file.
    """
    files: dict[Path, Found] = {}
    others: Counter[str] = Counter()
    for place in _expanded(places, option):
        if place.is_dir():
            paths = finding.find(place, suffixes).paths
            below = [Found(path, path.relative_to(place).parent.parts) for path in paths]
        else:
            below = [Found(place, place.parent.parts[-_PARENTS:])]
        for found in below:
            if found.path.suffix.lower() in suffixes:
                files.setdefault(found.path, found)
    if not files:
        for place in _expanded(places, option):
            paths = place.rglob("*.*") if place.is_dir() else [place]
            others.update(path.suffix.lower() for path in paths if path.is_file())
        raise UserError(f"{option}: {_nothing(places, suffixes, others)}")
    return sorted(files.values(), key=lambda found: finding.natural(found.path))


def _expanded(places: Sequence[str], option: str) -> Iterable[Path]:
    """Absolute paths of what exists; patterns are replaced by what fits them."""
    for place in places:
        path = Path(os.path.abspath(place))
        if path.exists():
            yield path
            continue
        fitting = sorted(glob.glob(str(path), recursive=True))
        if not fitting:
            raise UserError(f"{option}: there is no file or folder {place}")
        yield from map(Path, fitting)


def _nothing(places: Sequence[str], suffixes: Sequence[str], others: Counter[str]) -> str:
    """That there are no files, and which others there are."""
    named = ", ".join(map(str, places[:3])) + (" …" if len(places) > 3 else "")
    text = f"no image files ({' '.join(suffixes)}) in {named}"
    if not others:
        return text
    text += ", only " + ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    if others[".json"]:
        return f"{text}: polygons have to be drawn as label images first, by the data set's tools"
    if others[".jpg"]:
        return (
            f"{text}: JPEG does not keep label values; take the labels from before they were JPEG"
        )
    return text
