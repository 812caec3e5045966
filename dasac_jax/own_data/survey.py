"""Read all labels of a domain: which values they hold, and whether their sizes fit the images."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from dasac_jax.data import label_values
from dasac_jax.data.decoding import displayed_size, read_values, same_proportions, turned_hint
from dasac_jax.data.label_values import Value
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.preparation.execute import in_threads
from dasac_jax.errors import UserError

Size = tuple[int, int]
"""Height and width in pixels."""

Update = Callable[[int], None]

_MOST_VALUES = 1024
"""The values of a file that are kept by themselves: resampled colour maps have many thousands."""


class Labels(NamedTuple):
    """What the label files of a domain hold.

    pixels: by value. images: in how many files each value is. rest: pixels of values that are rare
    in their file, where a file has very many. total: all pixels. scaled: how many labels have
    another size than their image.
    """

    pixels: Counter[Value]
    images: Counter[Value]
    rest: int
    total: int
    scaled: int


class _File(NamedTuple):
    """What one label file holds."""

    size: Size
    counts: Counter[Value]
    rest: int


def image_sizes(paths: Sequence[Path], jobs: int, update: Update) -> list[Size]:
    """The sizes of images as they are displayed. Raises UserError for files that are no images."""
    return in_threads(displayed_size, paths, jobs, update)


def read_labels(
    pairs: Sequence[tuple[Path, Path]],
    sizes: Sequence[Size],
    option: str,
    *,
    by_colour: bool = False,
    kept: Path | None = None,
    jobs: int = 1,
    update: Update | None = None,
) -> Labels:
    """Read the labels of pairs, whose images have the given sizes.

    by_colour: read palette files by colour. kept: a file of what was read, where a read that was
    stopped goes on. Raises UserError naming the first file that cannot be read, and for a label
    whose proportions are not those of its image.
    """
    palettes = Palettes()

    with _remembered(kept, by_colour) as (known, remember):

        def read(pair: tuple[Path, Path]) -> _File:
            path = pair[1]
            key = _key(path)
            if key in known:
                return known[key]
            values = read_values(path, palettes, by_colour=by_colour)
            counts = label_values.count(values)
            most = Counter(dict(counts.most_common(_MOST_VALUES)))
            found = _File(values.shape[:2], most, counts.total() - most.total())
            remember(key, found)
            return found

        files = in_threads(read, pairs, jobs, update)
    differing = _check_sizes(pairs, sizes, files, option)
    pixels: Counter[Value] = Counter()
    images: Counter[Value] = Counter()
    for file in files:
        pixels.update(file.counts)
        images.update(file.counts.keys())
    rest = sum(file.rest for file in files)
    return Labels(pixels, images, rest, pixels.total() + rest, differing)


def _check_sizes(
    pairs: Sequence[tuple[Path, Path]], sizes: Sequence[Size], files: Sequence[_File], option: str
) -> int:
    """How many labels have another size. Raises UserError where one has other proportions."""
    differing = [i for i, file in enumerate(files) if file.size != sizes[i]]
    wrong = [i for i in differing if not same_proportions(sizes[i], files[i].size)]
    if wrong:
        image, label = pairs[wrong[0]]
        size, label_size = size_text(sizes[wrong[0]]), size_text(files[wrong[0]].size)
        raise UserError(
            f"{option}: labels of another size: {label} has {label_size}, its image {image.name} "
            f"{size}"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + (turned_hint(image, sizes[wrong[0]], files[wrong[0]].size) or ": is it its own?")
        )
    return len(differing)


def size_text(size: Size) -> str:
    """Width and height as in "2048×1024"."""
    return f"{size[1]}×{size[0]}"


def _key(path: Path) -> str:
    """A label file as it is now."""
    found = path.stat()
    return f"{path}:{found.st_size}:{found.st_mtime_ns}"


@contextlib.contextmanager
def _remembered(
    kept: Path | None, by_colour: bool
) -> Iterator[tuple[dict[str, _File], Callable[[str, _File], None]]]:
    """What the file `kept` says of label files, by their keys, and a function that adds to it."""
    if kept is None:
        yield {}, lambda key, file: None
        return
    known = {}
    with _opened(kept) as file:
        file.seek(0)
        for line in file:
            with contextlib.suppress(ValueError, KeyError):  # the last line of a killed command
                entry = json.loads(line)
                if entry["by_colour"] == by_colour:
                    known[entry["key"]] = _from_json(entry)

        def remember(key: str, found: _File) -> None:
            entry = {"key": key, "by_colour": by_colour, "size": found.size, "rest": found.rest}
            entry["counts"] = list(found.counts.items())
            file.write(json.dumps(entry) + "\n")  # one call, so that lines of threads stay whole

        yield known, remember


def _opened(path: Path) -> TextIO:
    """A file to read and to add lines to. Raises UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8", buffering=1)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _from_json(entry: dict[str, Any]) -> _File:
    counts = {tuple(v) if isinstance(v, list) else v: count for v, count in entry["counts"]}
    return _File(tuple(entry["size"]), Counter(counts), entry["rest"])
