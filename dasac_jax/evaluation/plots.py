"""Pictures of an evaluation: IoU by class as bars, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dasac_jax.reporting import figures

_COLOURS = ("#2f6fb5", "#d1682b", "#3f8f5b", "#8a5fb0", "#b5942f", "#6b7280")
_DPI = 120
_OPTIONS = {"layout": "constrained", "facecolor": "white"}
_LEGEND_COLUMNS = 3
_CELLS_NUMBERED = 40  # classes up to which the cells of a confusion matrix have room for a number
_LEAST_NUMBERED = 1  # %: cells with a smaller share of their row have no number


def iou_bars(class_names: Sequence[str], ious: Mapping[str, np.ndarray]) -> bytes:
    """A PNG file with a group of bars for each class, a bar for each result.

    ious: (C,) IoU in 0..1 by the result's name, in the order of the bars; for nan the word "nan"
    stands in place of a bar.
    A dashed line marks each result's mean over all classes that have a value.
    """
    classes, results = len(class_names), len(ious)
    width = max(6.0, 1.5 + 0.16 * classes * (results + 1.2))
    figure = figures.create(width, 4.6, _DPI, **_OPTIONS)
    axis = figure.subplots()
    bar = 0.8 / max(results, 1)
    for index, (name, iou) in enumerate(ious.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = np.arange(classes) + (index - (results - 1) / 2) * bar
        absent = np.isnan(iou)
        axis.bar(places, np.where(absent, 0, 100 * iou), bar, color=colour, label=_text(name))
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
    return figures.png(figure)


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
    figure = figures.create(side + 0.8, side, _DPI, **_OPTIONS)
    axis = figure.subplots()
    axis.set_facecolor("#c8ccd2")
    image = axis.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(np.arange(len(columns)), columns, rotation=90)
    axis.set_yticks(np.arange(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(_text(title), fontsize=11)
    if len(class_names) <= _CELLS_NUMBERED:
        for row, column in np.argwhere(np.nan_to_num(shares) >= _LEAST_NUMBERED):
            share = shares[row, column]
            ink = "white" if share > 50 else "black"
            text = f"{share:.0f}"
            axis.text(column, row, text, color=ink, fontsize=7, ha="center", va="center")
    figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02, label="% of the true class")
    return figures.png(figure)


def _text(name: str) -> str:
    """A name that is drawn as it is: matplotlib takes text between dollar signs for a formula."""
    return name.replace("$", r"\$")
