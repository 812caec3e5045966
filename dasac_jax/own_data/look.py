"""A picture of images with their labels as training reads them, since people look at pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dasac_jax.data.labels import Class
from dasac_jax.data.pairs import PairSource
from dasac_jax.reporting import label_pictures

IMAGES = 3
"""How many images of each domain are shown."""

_FONT = 14  # pixels
_UNSEEN = 235  # the grey of what does not exist


def picture(
    source: PairSource, target: PairSource, labelled: PairSource | None, classes: Sequence[Class]
) -> np.ndarray:
    """A few images of both domains, each with its label in colours and both mixed: (H, W, 3) uint8.

    labelled: those of the target that have labels; without any, target images stand alone. Raises
    UserError for files that cannot be read.
    """
    rows = [_row(item, "source", classes) for item in _some(source)]
    # Labelled ones come first, because their labels may be wrong.
    shown = _some(labelled)[: IMAGES - 1] if labelled is not None else []
    rows += [_row(item, "target", classes) for item in shown]
    rows += [_row(item, "target", None) for item in _some(target)[: IMAGES - len(shown)]]
    height = max(row[0].shape[0] for row in rows)
    width = max(row[0].shape[1] for row in rows)
    same = [[_padded(cell, height, width) for cell in row] for row in rows]
    return label_pictures.panel(same, ["image", "label (black: ignored)", "both"], classes)


def _some(pairs: PairSource) -> list[dict]:
    """A few items at equal distances."""
    count = min(IMAGES, len(pairs))
    return [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]


def _row(item: dict, domain: str, classes: Sequence[Class] | None) -> list[np.ndarray]:
    """Image, label and overlay of one item; without classes there is no label to show."""
    image = label_pictures.shrunk(item["image"])
    first = _titled(image, f"{domain}: {item['name'].rsplit('/', 1)[-1]}")
    if classes is None:
        return [first, _titled(np.full_like(image, _UNSEEN), "no label"), image]
    label = label_pictures.shrunk(item["label"])
    return [
        first,
        label_pictures.colourise(label, classes),
        label_pictures.overlay(image, label, 0.6, classes),
    ]


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """A picture with a line of text in its upper left corner."""
    canvas = Image.fromarray(image)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT)
    draw.rectangle(draw.textbbox((3, 2), title, font), fill="white")
    draw.text((3, 2), title, "black", font)
    return np.asarray(canvas)


def _padded(cell: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture on a white canvas of one size for all."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: cell.shape[0], : cell.shape[1]] = cell
    return canvas
