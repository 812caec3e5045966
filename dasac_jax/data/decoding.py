"""Read image and label files as arrays. Errors name the file."""

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
    """Read an 8-bit PNG of one channel as (h, w) uint8; of a palette PNG, the indices.

    Raises UserError naming the file where it cannot be read or has another pixel format.
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
    """Read an image file of 8 bits per channel as (h, w, 3) uint8 RGB of the given size (h, w).

    Images of other sizes are resized by Pillow, bilinear with antialiasing. Raises UserError naming
    the file where it cannot be read or has more than 8 bits per channel.
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
