"""What label files hold, numbers or colours, and the classes that these stand for.

A label value is a number from 0 to 65535 or a colour (red, green, blue). An id map gives the class
of each; all other values are ignored.
"""

import functools
from collections import Counter

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.image.label_values import IGNORE

Colour = tuple[int, int, int]
Value = int | Colour
"""A number, 0 to 65535, or a colour."""

IdMap = tuple[tuple[Value, int], ...]
"""(label value, train id) pairs."""

MAX_NUMBER = 65535
"""The largest number that label files hold: those of 16 bits."""


def is_colour(value: object) -> bool:
    """Whether this is a colour: a sequence of three whole numbers from 0 to 255."""
    return isinstance(value, tuple | list) and len(value) == 3 and all(map(_is_byte, value))


def has_numbers(id_map: IdMap) -> bool:
    """Whether an id map names numbers: palette files are then read by index, else by colour."""
    return any(isinstance(value, int) for value, _ in id_map)


def train_ids(values: np.ndarray, id_map: IdMap, path: object) -> np.ndarray:
    """The classes of a label file's values, 255 for those that the id map does not name.

    values: numbers (h, w) uint8 or uint16, or colours (h, w, 3) uint8; path: of the file, for
    messages. Returns (h, w) uint8. Raises UserError where the file holds colours and the id map
    names numbers alone, or the other way round.
    """
    numbers, colours = _tables(id_map)
    found, kinds = (colours, "colours") if values.ndim == 3 else (numbers, "numbers")
    if found is None:
        raise UserError(
            f"label file {path} holds {kinds}, of which data.classes.*_ids name none: name those "
            "that stand for classes"
        )
    return found[packed(values)]


def packed(values: np.ndarray) -> np.ndarray:
    """Label values as single numbers (h, w): colours as red · 65536 + green · 256 + blue."""
    if values.ndim == 2:
        return values
    red, green, blue = (values[..., i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue


def count(values: np.ndarray) -> Counter[Value]:
    """How many pixels have each value; `values` as for `train_ids`."""
    single = packed(values)
    if values.ndim == 2:
        counts = np.bincount(single.ravel())
        found = np.flatnonzero(counts)
        return Counter(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))
    found, counts = np.unique(single, return_counts=True)
    colours = ((v >> 16, v >> 8 & 255, v & 255) for v in found.tolist())
    return Counter(dict(zip(colours, counts.tolist(), strict=True)))


def text(value: Value) -> str:
    """A value as in "7" or "(128, 64, 128)"."""
    return str(value) if isinstance(value, int) else f"({', '.join(map(str, value))})"


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


@functools.lru_cache(maxsize=8)
def _tables(id_map: IdMap) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The class of every number (65536,) and of every packed colour (2**24,) uint8.

    None where the map names no number, or no colour. One look-up in a table of all colours is
    faster than comparing with each, and takes 16 MiB.
    """
    numbers = {value: train_id for value, train_id in id_map if isinstance(value, int)}
    colours = {value: train_id for value, train_id in id_map if not isinstance(value, int)}
    return (
        _table(numbers, MAX_NUMBER + 1) if numbers else None,
        _table({r << 16 | g << 8 | b: i for (r, g, b), i in colours.items()}, 1 << 24)
        if colours
        else None,
    )


def _table(classes: dict[int, int], size: int) -> np.ndarray:
    found = np.full(size, IGNORE, np.uint8)
    for value, train_id in classes.items():
        found[value] = train_id
    return found
