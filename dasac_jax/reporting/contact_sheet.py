"""A picture of what one step of the adaptation trains on, with its random parameters as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dasac_jax.data.labels import CLASSES, Class
from dasac_jax.image import views
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.image.view_parameters import Jitter, Noise, Window, draw_crop, draw_view
from dasac_jax.image.warp import warp_affine
from dasac_jax.reporting import label_pictures

_GAP, _LINE, _FONT = 8, 16, 12  # pixels
_INK, _PAPER, _UNSEEN = (20, 20, 20), (255, 255, 255), 225  # text, ground, pixels of no view
_AMPLIFIED = 4  # how much stronger differences are shown than they are
_JITTERS = ("brightness {:.2f}", "contrast {:.2f}", "saturation {:.2f}", "hue {:+.2f}")

Cell = tuple[np.ndarray, str]
"""A picture (H, W, 3) uint8 and its caption."""


class Drawn(NamedTuple):
    """The random parameters of V target views; every array has a leading axis of V."""

    frames: Window
    windows: Window
    noise: Noise


def drawn_views(
    key: jax.Array,
    target_view: jax.Array,
    *,
    size: views.Size,
    num_views: int,
    target_scale: views.Range,
    zoom: views.Range,
    jitter: float,
    hue: float,
) -> Drawn:
    """The random parameters of `views.target_views` for the same arguments, without the views.

    target_view: (V,) the views' global numbers.
    """

    def draw(view):
        group = views.item_key(key, views.TARGET, view // num_views)
        frame = draw_crop(jax.random.fold_in(group, 0), size, size, target_scale)
        place = view % num_views
        own = jax.random.fold_in(group, place + 1)
        return Drawn(frame, *draw_view(own, place, size, zoom, jitter, hue))

    return jax.vmap(draw)(target_view)


def drawn_sources(
    key: jax.Array, source_item: jax.Array, shape: views.Size, *, size: views.Size, scale
) -> Window:
    """The crops that `views.adapt_views` draws for source images (S,) of one shape, one for each.

    source_item: (S,) the images' global numbers. shape: (H, W) of the decoded images.
    """
    return jax.vmap(
        lambda item: draw_crop(views.item_key(key, views.SOURCE, item), shape, size, scale)
    )(source_item)


def contact_sheet(
    raw: dict[str, Any],
    batch: dict[str, np.ndarray],
    drawn: Drawn,
    sources: Window,
    *,
    statistics: tuple[Sequence[float], Sequence[float]],
    title: str,
    classes: Sequence[Class] = CLASSES,
) -> np.ndarray:
    """Target images, their views, views warped back, source images and labels, with captions.

    Args:
        raw: the loader's batch, with names. batch: what `views.adapt_views` made of it.
        drawn, sources: the random parameters that it was made with, from `drawn_views` and
            `drawn_sources`.
        statistics: mean and std that the source was normalised with.

    Returns:
        (H', W', 3) uint8.
    """
    groups = len(raw["target_image"])
    count = len(drawn.windows.scale) // groups
    names = raw["names"][-groups:]
    sections = [
        (
            f"target image {names[group]}",
            _target_rows(
                raw["target_image"][group], batch, drawn, range(count * group, count * (group + 1))
            ),
        )
        for group in range(groups)
    ]
    sections.append(
        ("source images and labels", _source_rows(raw, batch, sources, statistics, classes))
    )
    sheet = _paste(title, sections)
    return np.concatenate([sheet, label_pictures.legend(sheet.shape[1], classes)])


def warped_back(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's views brought to their groups' reference frames.

    Returns images (V, H, W, 3) float32 in [0, 1], 0 where a view shows nothing, and (V, H, W) in
    [0, 1]: the share of a pixel that lies in the view.
    """
    seen = (~batch["padded"]).astype(np.float32)[..., None]
    shown = _unit(batch["teacher_view"]) * seen
    both = np.concatenate([shown, seen], axis=-1)
    back = np.array(warp_affine(both, batch["to_reference"]))
    return back[..., :3] / np.maximum(back[..., 3:], 1e-3), back[..., 3]


def _unit(images, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> np.ndarray:
    """Normalised images → RGB in [0, 1]."""
    return np.clip(np.asarray(images) * np.asarray(std) + np.asarray(mean), 0, 1).astype(np.float32)


def _target_rows(
    image: np.ndarray, batch: dict[str, np.ndarray], drawn: Drawn, numbers: range
) -> list[list[Cell]]:
    """Of one target image (h, w, 3) uint8 its reference, then a row for each of its views.

    numbers: where its views stand in the batch.
    """
    back, seen = (x[numbers.start : numbers.stop] for x in warped_back(batch))
    first = jax.tree.map(lambda x: x[numbers.start], drawn)
    # View 0 is the whole frame: warped back it is the reference, without what is padding.
    reference, times = back[0], seen.sum(0)
    mean = (back * seen[..., None]).sum(0) / np.maximum(times, 1e-3)[..., None]
    height, width = reference.shape[:2]
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    frame = f"reference: scale {first.frames.scale:.2f}{_flipped(first.frames)}"
    overview = [
        (np.asarray(resized), f"as read, {image.shape[0]}x{image.shape[1]}, resized"),
        (_bytes(reference, seen[0]), frame),
        (_bytes(mean, times), "mean of the views warped back: sharp where they agree"),
        (label_pictures.heat(times / len(numbers)), f"views that see a pixel, 0 to {len(numbers)}"),
    ]
    rows = [overview]
    for place, number in enumerate(numbers):
        _, window, noise = jax.tree.map(lambda x, i=number: x[i], drawn)
        inside = ~batch["padded"][number]
        teacher, student = (
            _bytes(_unit(batch[f"{name}_view"][number]), inside) for name in ("teacher", "student")
        )
        difference = np.abs(back[place] - reference).mean(-1)
        visible = np.minimum(seen[place], seen[0]) > 0.99
        error = 255 * difference[visible].mean() if visible.any() else 0.0
        amplified = label_pictures.heat(np.clip(_AMPLIFIED * difference, 0, 1)) / 255
        view = "whole frame" if window.scale == 1 else f"window of {window.scale:.2f}"
        rows.append(
            [
                (teacher, f"view {place}, teacher: {view}{_flipped(window)}"),
                (student, f"student: {noise_in_words(noise)}"),
                (_bytes(back[place], seen[place]), "warped back to the reference"),
                (
                    _bytes(amplified, visible),
                    f"difference from it, {_AMPLIFIED} times; mean {error:.1f} of 255",
                ),
            ]
        )
    return rows


def _source_rows(
    raw: dict[str, Any],
    batch: dict[str, np.ndarray],
    sources: Window,
    statistics: tuple[Sequence[float], Sequence[float]],
    classes: Sequence[Class],
) -> list[list[Cell]]:
    """The source images, each followed by its labels, four pictures in a row."""
    cells: list[Cell] = []
    for row, images in enumerate(batch["source_image"]):
        window = jax.tree.map(lambda x, i=row: x[i], sources)
        inside = (images != 0).any(-1)  # padding is 0 in every channel
        image = _bytes(_unit(images, *statistics), inside)
        name = raw["names"][row].rsplit("/", 1)[-1]
        cells.append((image, f"{name}: scale {window.scale:.2f}{_flipped(window)}"))
        labels = np.asarray(batch["source_label"][row])
        cells.append((label_pictures.overlay(image, labels, 0.7, classes), "its labels"))
    return [cells[i : i + 4] for i in range(0, len(cells), 4)]


def _flipped(window: Window) -> str:
    return ", flipped" if window.flip else ""


def noise_in_words(noise: Noise) -> str:
    """A caption of what is done to one student view, in this order."""
    words = [f"blur {noise.radius:.1f}", *_jitter_in_words(noise.jitter)]
    return ", ".join([*words, "grey"] if noise.grey else words)


def _jitter_in_words(jitter: Jitter) -> list[str]:
    """The jitter's operations in the order in which they are applied."""
    if not jitter.apply:
        return []
    return [_JITTERS[kind].format(jitter.factors[kind]) for kind in jitter.order]


def _bytes(image: np.ndarray, seen) -> np.ndarray:
    """(H, W, 3) in [0, 1] → uint8, light grey where `seen` is at most a half or False."""
    shown = np.broadcast_to(np.asarray(seen) > 0.5, image.shape[:2])
    return np.where(shown[..., None], np.round(255 * image), _UNSEEN).astype(np.uint8)


def _paste(title: str, sections: list[tuple[str, list[list[Cell]]]]) -> np.ndarray:
    """Rows of captioned pictures, up to four in a row, below their sections' titles."""
    font, bold = ImageFont.load_default(_FONT), ImageFont.load_default(_FONT + 4)
    wide = label_pictures.shrunk(sections[0][1][0][0][0]).shape[1]
    total = 4 * (wide + _GAP) + _GAP
    strips = [_strip(title, total, bold)]
    for heading, rows in sections:
        strips.append(_strip(heading, total, bold))
        for row in rows:
            pictures = [label_pictures.shrunk(picture) for picture, _ in row]
            captions = [_wrapped(caption, wide, font) for _, caption in row]
            tall = pictures[0].shape[0]
            lines = max(map(len, captions))
            canvas = Image.new("RGB", (total, tall + lines * _LINE + _GAP), _PAPER)
            draw = ImageDraw.Draw(canvas)
            for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
                left = _GAP + place * (wide + _GAP)
                canvas.paste(Image.fromarray(picture), (left, 0))
                for line, text in enumerate(caption):
                    draw.text((left, tall + 2 + line * _LINE), text, _INK, font)
            strips.append(np.asarray(canvas))
    return np.concatenate(strips)


def _strip(text: str, width: int, font) -> np.ndarray:
    """A line of text as a picture (H, width, 3) uint8."""
    canvas = Image.new("RGB", (width, _LINE + 2 * _GAP), _PAPER)
    ImageDraw.Draw(canvas).text((_GAP, _GAP), text, _INK, font)
    return np.asarray(canvas)


def _wrapped(text: str, width: int, font) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
