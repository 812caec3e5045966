"""16-bit colour PNGs, exactly: Pillow on its own keeps only the upper byte of every sample.

Class numbers sit in the lower byte, so of SYNTHIA's labels nothing but zeros would be left. Here
Pillow's decoder is told to hand over one byte of every sample, then the other: 29 ms for a label of
SYNTHIA, where libpng (through OpenCV) takes 14 ms and pypng 700 ms.
"""

import os

import numpy as np
from PIL import Image

from dasac_jax.data.decoding import DECODE_ERRORS
from dasac_jax.errors import UserError

# Pillow's names of samples as they lie in such a file, big endian. Read as if they were little
# endian, the byte that is taken for the upper one is the lower one.
_LOWER_BYTE = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def read_sixteen_bits(path: str | os.PathLike) -> np.ndarray:
    """A 16-bit colour PNG -> (h, w, 3) uint16, or (h, w, 4) with transparency.

    Raises UserError naming the file when it cannot be read or has another pixel format.
    """
    try:
        with Image.open(path) as image:
            stored = _stored(image)
            upper = np.array(image) if stored in _LOWER_BYTE else None
        if upper is not None:
            with Image.open(path) as image:
                codec, box, offset, _ = image.tile[0]
                image.tile = [type(image.tile[0])(codec, box, offset, _LOWER_BYTE[stored])]
                lower = np.array(image)
            return upper.astype(np.uint16) << 8 | lower
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read label file {path}: {error}") from error
    raise UserError(
        f"label file {path} has pixel format {stored}: a 16-bit colour PNG is needed, as SYNTHIA's "
        "archive holds it in GT/LABELS"
    )


def _stored(image: Image.Image) -> str:
    """How Pillow names the samples in the file, or the image's mode for anything but one PNG."""
    tiles = getattr(image, "tile", ())
    if image.format == "PNG" and len(tiles) == 1 and isinstance(tiles[0][3], str):
        return tiles[0][3]
    return image.mode
