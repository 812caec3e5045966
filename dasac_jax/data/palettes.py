"""The palettes of label files: whether an index means the same in all files of a set.

Of a palette image the index of a pixel is its label value. Programs that make files smaller drop
unused colours and number the others anew, which leaves the picture as it was and changes every
value. Nothing but the colours tells that this has happened.
"""

from typing import Any

import numpy as np
from PIL import Image

from dasac_jax.errors import UserError


class Palettes:
    """The colours that the indices of a set's label files have had so far.

    One instance belongs to one set, such as the labels of a folder, whose files are all to use the
    same palette. Many threads may call `check` at once.
    """

    def __init__(self) -> None:
        self._colours: dict[int, tuple[bytes, str]] = {}  # index -> its colour, a file with it

    def check(self, path: Any, indices: np.ndarray, palette: bytes) -> None:
        """Raise UserError naming the file where its palette says that indices are no label values.

        indices: (h, w) uint8. palette: red, green and blue of index 0, of index 1 and so on. It is
        at fault where all of it is grey and an index that occurs is not its own grey, or where an
        index that occurs has another colour than in an earlier file. The colours of indices that
        do not occur mean nothing, so files may lack colours at the end.
        """
        # Pillow counts three times as fast as NumPy, and every palette label is counted.
        counts = Image.fromarray(indices).histogram()[: len(palette) // 3]
        present = [index for index, count in enumerate(counts) if count]
        colours = {i: palette[3 * i : 3 * i + 3] for i in present}
        if _is_grey(palette):
            _check_grey(path, colours)
        for index, colour in colours.items():
            # `setdefault` is one step for other threads, so no lock is needed.
            before, other = self._colours.setdefault(index, (colour, str(path)))
            if colour != before:
                raise UserError(
                    f"label file {path}: its palette has {_text(colour)} for value {index}, "
                    f"that of {other} {_text(before)}, so the values of the two do not mean "
                    "the same: was one of them optimised? Save both with one palette, or as "
                    "grey PNGs of the values"
                )


def _is_grey(palette: bytes) -> bool:
    return palette[::3] == palette[1::3] == palette[2::3]


def _check_grey(path: Any, colours: dict[int, bytes]) -> None:
    """Raise UserError for a grey palette in which a value that occurs has another value's grey."""
    for index, colour in colours.items():
        if colour[0] != index:
            raise UserError(
                f"label file {path}: its palette is grey, but value {index} has the grey "
                f"{colour[0]}, so it may have been saved for value {colour[0]} before an optimiser "
                "numbered the colours anew: save it as a grey PNG of the values that are meant"
            )


def _text(colour: bytes) -> str:
    return f"({', '.join(map(str, colour))})"
