"""Read image and label files as arrays. Errors name the file."""

import os
import struct
import zlib
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from dasac_jax.data import png
from dasac_jax.data.label_values import MAX_NUMBER
from dasac_jax.data.palettes import Palettes
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

_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_COLOUR_MODES = ("RGB", "RGBA")
_EXPANDED = {2: 85, 4: 17}  # by how much Pillow multiplies grey of fewer bits, to fill 8
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF

_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


def read_ids(path: Any, palettes: Palettes | None = None) -> np.ndarray:
    """Read the label values (h, w) uint8 of a PNG or TIFF of one channel, just as they are stored.

    Grey of 1, 2, 4, 8 and 16 bits gives the numbers in the file, a palette its indices, turned as
    an EXIF orientation in the file says, like an image. palettes: what the palettes of the set's
    other files are compared with, see `Palettes.check`. Raises UserError naming the file where it
    cannot be read, has another pixel format or a value above 255, is in a format that may change
    values, or has a palette which says that its indices are no label values.
    """
    values, palette = png.read_single(path) or _read_label_by_pillow(path, colours=False)
    if palette is not None:
        (palettes or Palettes()).check(path, values, palette)
    if values.dtype != np.uint8:
        beyond = int(values[values > 255][0])
        raise UserError(f"label file {path} holds the value {beyond}: 0 to 255 can be train ids")
    return values


def read_values(
    path: Any, palettes: Palettes | None = None, *, by_colour: bool = False
) -> np.ndarray:
    """Read a PNG or TIFF label: numbers (h, w) uint8 or uint16, or colours (h, w, 3) uint8.

    RGB and RGBA files give their colours, whatever is transparent. A palette file gives its
    indices, or with by_colour the colours of its palette, which may then differ between files.
    Raises UserError as `read_ids` does, and for numbers above 65535 and colours of 16 bits.
    """
    colours = png.read_rgb(path)
    if colours is not None:
        return colours
    values, palette = png.read_single(path) or _read_label_by_pillow(path, colours=True)
    if palette is None:
        return values
    if by_colour:
        table = np.zeros((256, 3), np.uint8)
        table[: len(palette) // 3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
        return table[values]
    (palettes or Palettes()).check(path, values, palette)
    return values


def _read_label_by_pillow(path: Any, *, colours: bool) -> tuple[np.ndarray, bytes | None]:
    """Label values, see `read_values`, and the palette, if there is one."""
    try:
        bits = png.bit_depth(path)  # first: an open file has one position for all its readers
        with Image.open(path) as image:
            check_label_format(image, path, colours=colours)
            if image.format == "TIFF":
                bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]
            values, mode = np.array(ImageOps.exif_transpose(image)), image.mode
            palette = bytes(image.getpalette("RGB")) if mode == "P" else None
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read label file {path}: {error}") from error
    if mode in _COLOUR_MODES:
        if bits != 8:  # Pillow returns the upper byte of each sample
            raise UserError(
                f"label file {path} has colours of {bits} bits a channel: 8 can be read; SYNTHIA's "
                "labels are prepared by scripts/prepare_data.py synthia"
            )
        return np.ascontiguousarray(values[..., :3]), None
    if mode == "L" and bits in _EXPANDED:
        values //= _EXPANDED[bits]
    beyond = values[(values < 0) | (values > MAX_NUMBER)]
    if beyond.size:
        raise UserError(
            f"label file {path} holds the value {beyond[0]}: 0 to {MAX_NUMBER} can stand for "
            "classes"
        )
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16), palette


def check_label_format(image: Image.Image, path: Any, *, colours: bool = False) -> None:
    """Raise UserError naming the file where an opened image's format may not keep label values.

    Only the header of the image is looked at. colours: whether RGB and RGBA are allowed.
    """
    is_tiff = image.format == "TIFF"
    lossy_tiff = is_tiff and image.info.get("compression") in _LOSSY_TIFF
    inverted = is_tiff and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.format not in ("PNG", "TIFF") or lossy_tiff or inverted:
        kind = "TIFF file whose zero is white" if inverted else f"{image.format} file"
        if lossy_tiff:
            kind += f" with {image.info['compression']} compression"
        raise UserError(
            f"label file {path} is a {kind}, which does not keep label values as they are: save "
            "labels anew as PNG, from the values before they were stored like this"
        )
    if image.mode not in _LABEL_MODES + (_COLOUR_MODES if colours else ()):
        raise UserError(
            f"label file {path} has pixel format {image.mode}: a PNG with one channel or a "
            "palette is needed, colours are no class numbers"
        )


def read_rgb(path: Any) -> np.ndarray:
    """Read an image file of any common pixel format as (h, w, 3) uint8 RGB, as it is displayed.

    Grey, palette and CMYK images become RGB, and transparency is dropped; of 16-bit channels the
    upper 8 bits are kept; of several pictures in a file the first is taken; the image is turned as
    its EXIF orientation says. Raises UserError naming the file when it is missing, empty, cut off,
    damaged, or holds 32-bit numbers.
    """
    pixels = png.read_rgb(path)
    return _read_by_pillow(path) if pixels is None else pixels


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 brought to the size (h', w') by Pillow, bilinear with antialiasing."""
    if pixels.shape[:2] == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))


def displayed_size(path: Any, kind: str = "image") -> tuple[int, int]:
    """(h, w) of an image or label file as it is displayed, mostly from its header alone.

    kind: what it is called in the UserError that is raised where it cannot be read.
    """
    try:
        may_be_turned = png.may_be_turned(path)
        with Image.open(path) as image:
            if may_be_turned and _orientation(image) in _SIDEWAYS:
                image = ImageOps.exif_transpose(image)
            return image.height, image.width
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read {kind} {path}: {error}") from error


def turned_hint(path: Any, size: tuple[int, int], label_size: tuple[int, int]) -> str:
    """What to do about an image and its label of other proportions, where one of them is turned.

    path: of the image. size, label_size: (h, w) as displayed. Empty where neither seems turned.
    """
    if not same_proportions(size[::-1], label_size):
        return ""
    with Image.open(path) as image:
        noted = _orientation(image) in _SIDEWAYS
    if noted:
        return (
            "; a camera's note turns the image, and the label was drawn without it: turn the label "
            "by 90°, or save the image without its EXIF orientation"
        )
    return "; one of the two is turned by 90°"


def same_proportions(size: tuple[int, int], other: tuple[int, int], stretch: float = 0.0) -> bool:
    """Whether one size (h, w) is the other one resized, up to a pixel.

    stretch: by which share height and width may be scaled differently besides.
    """
    difference = abs(size[0] * other[1] - size[1] * other[0])
    return difference < max(*size, *other) + stretch * size[0] * other[1]


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _read_by_pillow(path: Any) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode in _SIXTEEN_BITS:
                image = ImageOps.exif_transpose(image)
                grey = np.asarray(image).astype(np.uint16) >> 8
                return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
            if mode in _EIGHT_BITS:
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except DECODE_ERRORS as error:
        if (
            isinstance(path, str | os.PathLike)
            and os.path.isfile(path)
            and not os.path.getsize(path)
        ):
            raise UserError(f"image {path} is empty (0 bytes)") from error
        raise UserError(f"cannot read image {path}: {error}") from error
    raise UserError(f"image {path} has pixel format {mode}: 8 or 16 bits per channel are needed")
