"""16-bit colour PNGs, exactly: Pillow on its own keeps only the upper byte of every sample.

SYNTHIA's labels are such files, with the class ids in the lower byte, so that Pillow would return
nothing but zeros. Here its decoder runs twice, once for the upper bytes and once for the lower
ones. This takes 29 ms for a label of SYNTHIA; libpng (through OpenCV) takes 14 ms, pypng 700 ms.
TensorStore, which decodes the other PNGs (`data.png`), supports 8 bits only.
"""

import os

import numpy as np
from PIL import Image

from dasac_jax.data.decoding import DECODE_ERRORS
from dasac_jax.errors import UserError

# Pillow's names for big-endian samples, as PNG stores them, and for little-endian ones. Of samples
# that are declared little endian, Pillow keeps the second byte, which really is the lower one.
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
                # `tile`, what Pillow is going to decode and how, is not a public interface.
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
    """Pillow's name for the samples in a PNG file; the image's mode for other files."""
    tiles = getattr(image, "tile", ())
    if image.format == "PNG" and len(tiles) == 1 and isinstance(tiles[0][3], str):
        return tiles[0][3]
    return image.mode
