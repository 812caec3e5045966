"""Image files of users: found by file, folder, list or pattern."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dasac_jax.data import finding, list_files
from dasac_jax.errors import UserError
from dasac_jax.files import PREDICTION_RECORD, PREDICTIONS, check_reachable

SUFFIXES = (".png", ".jpg", ".jpeg")
"""The suffixes of images in folders; a file that is given by name may have any other."""

_RESULTS = "results of predictions"

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
"""The suffixes of lists of images."""


class ImageFile(NamedTuple):
    """An image to read, and its name for output files: a relative path without suffix."""

    path: Path
    name: str


def find_images(
    given: Sequence[str | os.PathLike], *, outside: Sequence[str | os.PathLike] = ()
) -> list[ImageFile]:
    """The images that files, folders, lists and patterns stand for, each once, in order.

    A folder stands for its images (SUFFIXES) as `finding.find` finds them, in natural order, and a
    warning says how many other pictures it holds; a file ending in .txt, .csv or .tsv for those
    that it lists, in its order; a pattern for what matches it ("**": any depth). Several files keep
    their order, unless it is the one in which a shell expands a pattern. Names are relative to the
    folder where exactly one was given, else to the deepest folder that all images share. outside:
    folders, such as those of the results, whose files are left out of the search, as are those of
    earlier predictions in a folder that is searched.

    Raises UserError for what does not exist, for no images at all, for files given by name or list
    that lie in one of the folders `outside`, and for two images of the same name (a.png beside
    a.jpg), whose results would overwrite each other.
    """
    passed = _Passed([], [])
    is_result = _inside(outside)
    paths = []
    for item in map(os.fspath, _in_sequence(given)):
        paths += (of_item := _paths(item, passed))
        result = next(filter(is_result, of_item), None)
        if result and os.path.isfile(item):
            raise UserError(
                f"image {result} lies where results of predictions are written: choose another "
                "folder for these"
            )
    found = [p for p in dict.fromkeys(paths) if not is_result(p)]
    others = [p for p in passed.others if not is_result(p)]
    results = [p for p in paths if is_result(p)] + passed.results
    kinds = f"files ending in {', '.join(SUFFIXES)}"
    if not found:
        places = ", ".join(os.fspath(item) for item in given) or "nothing"
        told = "".join(f"; {text}" for text in finding.left_out(others, "of another kind"))
        told += "".join(f"; {text}" for text in finding.left_out(results, _RESULTS))
        raise UserError(f"no images in {places}: {kinds} are needed{told}")
    finding.warn_of_left_out(others, "of another kind; give them by name or pattern")
    finding.warn_of_left_out(passed.results, _RESULTS)
    if len(given) == 1 and os.path.isdir(given[0]):
        root = os.path.abspath(given[0])
    else:
        root = os.path.commonpath([path.parent for path in found])
    return _named(found, root)


def _named(paths: Sequence[Path], root: str) -> list[ImageFile]:
    """Images with their names below a folder. Raises UserError where two have the same."""
    found: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise UserError(
                f"{found[name]} and {path} differ in their suffix only, so their results would "
                "have the same name: predict them to different folders"
            )
        found[name] = path
    return [ImageFile(path, name) for name, path in found.items()]


def _inside(folders: Sequence[str | os.PathLike]) -> Callable[[Path], bool]:
    """Whether a file lies in one of the folders, links being followed."""
    real = functools.cache(os.path.realpath)
    places = [real(folder) for folder in folders]
    return lambda path: any(Path(real(path.parent)).is_relative_to(place) for place in places)


def _in_sequence(given: Sequence[str | os.PathLike]) -> list[str | os.PathLike]:
    """The given paths in natural order where a shell seems to have ordered them, else as they are.

    A shell that expands frames/*.png puts frame_10 before frame_2; some ignore case and signs.
    """

    def letters(path: str | os.PathLike) -> str:
        return re.sub(r"[\W_]", "", os.fspath(path)).casefold()

    given = list(given)
    if given in (sorted(given, key=os.fspath), sorted(given, key=letters)):
        given.sort(key=finding.natural)
    return given


class _Passed(NamedTuple):
    """Pictures that a search passes over: of other suffixes, and results of predictions."""

    others: list[Path]
    results: list[Path]


def _paths(item: str, passed: _Passed) -> list[Path]:
    """The absolute paths that one file, folder, list or pattern stands for.

    passed: gets the pictures that are left out of the search of a folder.
    """
    if os.path.isdir(item):
        folder = Path(os.path.abspath(item))
        found = finding.find(folder, SUFFIXES)
        passed.others.extend(found.others)
        places = {path.parent for path in found.paths}
        predicted = {place for place in places if _is_predicted(place, folder)}
        passed.results.extend(path for path in found.paths if path.parent in predicted)
        return [path for path in found.paths if path.parent not in predicted]
    if os.path.isfile(item):
        is_list = item.lower().endswith(LIST_SUFFIXES)
        return [Path(os.path.abspath(path)) for path in (_listed(item) if is_list else [item])]
    if glob.has_magic(item):
        matches = [os.path.abspath(path) for path in glob.glob(item, recursive=True)]
        if "**" in item:
            loops = {f for f in {os.path.dirname(m) for m in matches} if _has_loop(f)}
            matches = [path for path in matches if os.path.dirname(path) not in loops]
        if item.endswith("**"):  # matches the files of the folders that it matches, too
            matches = [path for path in matches if not os.path.isdir(path)]
        matches.sort(key=finding.natural)
        return [
            path
            for match in matches
            for path in ([Path(match)] if os.path.isfile(match) else _paths(match, passed))
        ]
    check_reachable(item)
    raise UserError(f"there is no image, folder or list {item}")


def _is_predicted(folder: Path, above: Path) -> bool:
    """Whether a folder below `above` holds results of a prediction, which lie beside its record."""
    if folder == above:
        return False
    recorded = folder.name in PREDICTIONS and (folder.parent / PREDICTION_RECORD).is_file()
    return recorded or _is_predicted(folder.parent, above)


def _has_loop(folder: str) -> bool:
    """Whether a folder on the way to this one is a link to one of those above it."""
    real = [os.path.realpath(place) for place in (folder, *Path(folder).parents)]
    return len(set(real)) < len(real)


def _listed(path: str) -> list[str]:
    """A list's images, one in a line, relative to one of three folders.

    They are the list's own, the current one, and the one above the list's, where the images lie if
    the list is one of those that training reads.
    """
    folder = os.path.dirname(path)
    folders = (folder, "", os.path.dirname(os.path.abspath(folder)))

    def find(listed: str) -> str | None:
        places = [os.path.join(f, s) for s in list_files.spellings(listed) for f in folders]
        return next((place for place in places if os.path.isfile(place)), None)

    found = []
    for line in list_files.read(path, find):
        if not line.image_found:
            raise UserError(
                f"list file {path}, line {line.number}: there is no image {line.image} in the "
                f"list's folder ({folder or '.'}), the current one, or that above the list's"
            )
        found.append(line.image)
    return found
