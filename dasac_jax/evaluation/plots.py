"""Pictures of an evaluation: IoU by class as bars, and the confusion matrix."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence

import numpy as np

# While it looks for fonts the first time, matplotlib would say so among the program's own lines.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

_COLOURS = ("#2f6fb5", "#d1682b", "#3f8f5b", "#8a5fb0", "#b5942f", "#6b7280")
_DPI = 120
_LEGEND_COLUMNS = 3
_CELLS_NUMBERED = 40  # classes up to which the cells of a confusion matrix have room for a number
_SHOWN = 1  # % of a row from which on a cell has its number


def iou_bars(class_names: Sequence[str], ious: Mapping[str, np.ndarray]) -> bytes:
    """A PNG file with a group of bars for each class, a bar for each result.

    ious: (C,) IoU in 0..1 by the result's name, in the order of the bars; nan has "nan" for a bar.
    A dashed line marks each result's mean over all classes that have a value.
    """
    classes, results = len(class_names), len(ious)
    figure = _figure(max(6.0, 1.5 + 0.16 * classes * (results + 1.2)), 4.6)
    axis = figure.subplots()
    width = 0.8 / max(results, 1)
    for index, (name, iou) in enumerate(ious.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = np.arange(classes) + (index - (results - 1) / 2) * width
        absent = np.isnan(iou)
        axis.bar(places, np.where(absent, 0, 100 * iou), width, color=colour, label=_text(name))
        for place in places[absent]:
            axis.text(place, 1, "nan", rotation=90, ha="center", va="bottom", fontsize=8)
        if not absent.all():
            axis.axhline(100 * iou[~absent].mean(), color=colour, linestyle="--", linewidth=1)
    axis.set_xticks(np.arange(classes), [_text(name) for name in class_names], rotation=90)
    axis.set_xlim(-0.6, classes - 0.4)
    axis.set_ylim(0, 100)
    axis.set_ylabel("IoU, %  (dashed: mean)")
    axis.grid(axis="y", color="#d8dee4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    columns = min(results, _LEGEND_COLUMNS)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=columns)
    return _png(figure)


def confusion_matrix(class_names: Sequence[str], counts: np.ndarray, title: str) -> bytes:
    """A PNG file of a confusion matrix, each row as shares of its true class.

    counts: (C, C + 1) pixels, rows truth, columns prediction, the last of them no class; that
    column is drawn where it holds anything. Rows of classes that are not there are grey. Numbers
    are in %, from 1 % on.
    """
    counts = np.asarray(counts)
    names = [_text(name) for name in class_names]
    columns = [*names, "(no class)"]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
    side = max(4.0, 2.2 + 0.36 * len(class_names))
    figure = _figure(side + 0.8, side)
    axis = figure.subplots()
    axis.set_facecolor("#c8ccd2")
    image = axis.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(np.arange(len(columns)), columns, rotation=90)
    axis.set_yticks(np.arange(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(_text(title), fontsize=11)
    if len(class_names) <= _CELLS_NUMBERED:
        for row, column in np.argwhere(np.nan_to_num(shares) >= _SHOWN):
            share = shares[row, column]
            ink = "white" if share > 50 else "black"
            text = f"{share:.0f}"
            axis.text(column, row, text, color=ink, fontsize=7, ha="center", va="center")
    figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02, label="% of the true class")
    return _png(figure)


def _text(name: str) -> str:
    """A name as it is: between two dollar signs matplotlib would look for a formula."""
    return name.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    """A white figure, in inches, that draws without a display and leaves no global state."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without its version in the file, the same numbers give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
