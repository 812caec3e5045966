"""Image and label files -> arrays, with an error that names the file."""

import os
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from dasac_jax.data import png
from dasac_jax.errors import UserError

DECODE_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's "broken PNG file"
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are missing, cut off or damaged."""

_IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """An 8-bit single-channel PNG -> (h, w) uint8; of a palette PNG the indices, not the colours.

    Raises UserError naming the file when it cannot be read or has another pixel format.
    """
    ids = png.read_single(path)
    if ids is not None:
        return ids
    try:
        with Image.open(path) as image:
            mode = image.mode
            ids = np.array(image) if mode in ("L", "P") else None
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read label file {path}: {error}") from error
    if ids is None:
        raise UserError(
            f"label file {path} has pixel format {mode}: "
            "an 8-bit PNG with one channel or a palette is needed, colours are no class numbers"
        )
    return ids


def read_image(path: Any, size: tuple[int, int]) -> np.ndarray:
    """An 8-bit image file of any colour format -> (h, w, 3) uint8 RGB of the given size (h, w).

    Another size is brought to it as Pillow does, bilinear with antialiasing. Raises UserError
    naming the file where it cannot be read or has more than 8 bits per channel.
    """
    pixels = png.read_rgb(path)
    if pixels is None:
        pixels = _read_by_pillow(path)
    if pixels.shape[:2] != size:
        resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = np.array(resized)
    return pixels


def _read_by_pillow(path: Any) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode in _IMAGE_MODES:
                return np.array(image.convert("RGB"))
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read image {path}: {error}") from error
    raise UserError(f"image {path} has pixel format {mode}: 8 bits per channel are needed")
