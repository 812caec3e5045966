"""Pictures of label maps: colours, overlays, panels of pictures with titles and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dasac_jax.data.labels import CLASSES, IGNORE, Class, palette

CELL = 384
"""Pixels: wider pictures are shrunk to this width, so that a long run's files stay small."""
# All in pixels.
_GAP = 4
_TEXT_HEIGHT = 14
_STRIP = _TEXT_HEIGHT + 2 * _GAP  # the height of a line of text
_BAR = 160  # the width of `heat_bar`, where there is room
# The colours of 0 to 1. Lightness grows all the way, so that they can be read in grey too.
_HEAT = ((13, 8, 60), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def colourise(labels: np.ndarray, classes: Sequence[Class] = CLASSES) -> np.ndarray:
    """(H, W) train ids of any integer type -> (H, W, 3) uint8 in the classes' colours.

    Ignored (255), padded (negative) and unused ids are black.
    """
    labels = np.asarray(labels)
    known = (labels >= 0) & (labels < IGNORE)
    return palette(classes)[np.where(known, labels, IGNORE).astype(np.uint8)]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    strength: float = 0.5,
    classes: Sequence[Class] = CLASSES,
) -> np.ndarray:
    """Mix the classes' colours into an image.

    image: (H, W, 3) uint8. labels: (H, W) train ids, places in `classes`; pixels of no class keep
    the image. strength: 0 shows the image, 1 the colours. Returns (H, W, 3) uint8.
    """
    image, labels = np.asarray(image), np.asarray(labels)
    if image.shape[:2] != labels.shape:
        raise ValueError(f"image {image.shape[:2]} and labels {labels.shape} differ in size")
    known = (labels >= 0) & (labels < len(classes))
    weight = np.where(known, strength, 0.0)[..., None]
    colours = np.array([entry.color for entry in classes], np.uint8)
    mixed = image * (1 - weight) + colours[np.where(known, labels, 0)] * weight
    return np.round(mixed).astype(np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1], (H, W) -> (H, W, 3) uint8: dark blue over red to light yellow."""
    places = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(values, places, channel) for channel in zip(*_HEAT, strict=True)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def heat_bar(width: int, title: str) -> np.ndarray:
    """A key to the colours of `heat`, with its title and ends: (H, width, 3) uint8."""
    font = _font()
    canvas = Image.new("RGB", (width, _STRIP), "white")
    draw = ImageDraw.Draw(canvas)
    left = _GAP
    for text in (f"{title}  0", "1"):
        draw.text((left, _STRIP // 2), text, "black", font, anchor="lm")
        left += round(font.getlength(text)) + 2 * _GAP
        if text != "1":
            wide = min(_BAR, max(1, width - left - _STRIP))
            bar = heat(np.broadcast_to(np.linspace(0, 1, wide), (_TEXT_HEIGHT, wide)))
            canvas.paste(Image.fromarray(bar), (left, _GAP))
            left += wide + 2 * _GAP
    return np.asarray(canvas)


def shrunk(picture: np.ndarray, width: int = CELL) -> np.ndarray:
    """A picture of at most `width` pixels across, in its proportions.

    Pixels of images (H, W, 3) are averaged; of arrays (H, W), such as label maps, each new pixel
    takes the value of the nearest old one.
    """
    picture = np.asarray(picture)
    if picture.shape[1] <= width:
        return picture
    size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
    if picture.ndim == 3:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size[::-1], picture.shape, strict=True)
    )
    return picture[rows][:, columns]


def panel(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    classes: Sequence[Class] = CLASSES,
) -> np.ndarray:
    """One picture of equally large pictures in rows, with a title per column and a legend below.

    rows: pictures (H, W, 3) uint8, as many in a row as there are titles. Returns
    (H', W', 3) uint8 on white. Raises ValueError for uneven rows or sizes.
    """
    shapes = {np.shape(cell) for row in rows for cell in row}
    if len(shapes) != 1 or any(len(row) != len(titles) for row in rows):
        raise ValueError(
            f"a panel needs rows of {len(titles)} pictures of one size, got "
            f"{[len(row) for row in rows]} pictures of sizes {sorted(shapes)}"
        )
    height, width, _ = shapes.pop()
    total = len(titles) * (width + _GAP) + _GAP
    below = legend(total, classes)
    body = len(rows) * (height + _GAP)
    canvas = Image.new("RGB", (total, _STRIP + body + len(below)), "white")
    draw, font = ImageDraw.Draw(canvas), _font()
    for column, title in enumerate(titles):
        left = _GAP + column * (width + _GAP)
        draw.text((left + width // 2, _STRIP // 2), title, "black", font, anchor="mm")
        for line, row in enumerate(rows):
            cell = Image.fromarray(np.asarray(row[column], np.uint8))
            canvas.paste(cell, (left, _STRIP + line * (height + _GAP)))
    canvas.paste(Image.fromarray(below), (0, _STRIP + body))
    return np.asarray(canvas)


def legend(width: int, classes: Sequence[Class] = CLASSES) -> np.ndarray:
    """Every class's colour and name in lines of at most `width` pixels: (H, width, 3) uint8.

    A name that is wider than a line of its own is cut off.
    """
    font = _font()
    places, x, y = [], _GAP, 0
    for entry in classes:
        wide = _TEXT_HEIGHT + _GAP + round(font.getlength(entry.name)) + 2 * _GAP
        if x + wide > width and x > _GAP:
            x, y = _GAP, y + _STRIP
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + _STRIP), "white")
    draw = ImageDraw.Draw(canvas)
    for entry, (left, top) in zip(classes, places, strict=True):
        box = (left, top + _GAP, left + _TEXT_HEIGHT - 1, top + _GAP + _TEXT_HEIGHT - 1)
        draw.rectangle(box, fill=entry.color)
        place = (left + _TEXT_HEIGHT + _GAP, top + _STRIP // 2)
        draw.text(place, entry.name, "black", font, anchor="lm")
    return np.asarray(canvas)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(_TEXT_HEIGHT - 2)
