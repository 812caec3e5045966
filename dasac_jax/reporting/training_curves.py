"""Curves of a run's training: losses, scores, and what the adaptation assigns to each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from dasac_jax.data.labels import Class
from dasac_jax.reporting import figures
from dasac_jax.reporting.metrics_log import Line, curve

if TYPE_CHECKING:  # `figures` has to be the first to import them
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "losses": "losses",
    "selection_miou": "mean IoU on the selection split, %",
    "labelled": "pixels with a pseudo label, %",
    "teacher_distance": "distance of teacher and student",
    "class_prior": "class prior",
    "thresholds": "confidence thresholds",
    "share_teacher": "predicted target pixels by class, teacher, %",
    "agreement": "pixels that agree, or are unsure, %",
}
# The lines of plots that have several, by the metric that each shows.
_LINES = {
    "losses": {
        "loss_source": "source", "loss_target": "target", "loss_target_supervised": "truth",
    },
    "agreement": {
        "agreement_views": "a view with all views",
        "agreement_student": "student with teacher",
        "at_floor": "threshold at its least",
    },
}  # fmt: skip
_PERCENT = ("selection_miou", "labelled", "share_teacher", "agreement")
_BY_CLASS = ("class_prior", "thresholds", "share_teacher")
_LEAST_SHARE = 0.01  # %: less is drawn as so much, at the bottom
_STAGES = ("baseline", "adapt")
_STYLES = ("-", "--", "-.", ":")
_COLOURS = ("#2f6fb5", "#d1682b", "#3f8f5b")
_MARKED = 40  # a curve of at most so many points has a mark at each
_LIGHT, _DARK = ("#ffffff", "#24292f", "#d8dee4"), ("#1b1f24", "#dfe4ea", "#3b434c")
_DPI = 160
_WIDTH = 5.0  # inches: narrow enough that the letters stay readable on a phone


def draw(
    lines: Sequence[Line], classes: Sequence[Class], *, dark: bool = False
) -> dict[str, bytes]:
    """A PNG file for every curve of `TITLES` that has points.

    lines: of `metrics_log.read`. dark: light letters on a dark ground. Stages lie side by side.
    """
    drawn = {}
    for name in TITLES:
        stages = [stage for stage in _STAGES if any(True for _ in _parts(lines, stage, name))]
        if stages:
            drawn[name] = _draw_one(lines, stages, name, classes, dark)
    return drawn


def describe(lines: Sequence[Line], name: str, classes: Sequence[Class]) -> str:
    """A curve as text, for readers who cannot see it: its ends, or each class's last value."""
    parts = []
    for stage in _STAGES:
        for label, steps, values in _parts(lines, stage, name):
            ends = f"steps {steps[0]} to {steps[-1]} of {stage}"
            if values.ndim == 1:
                parts.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g} in {ends}".strip())
            else:
                last = zip(classes, values[-1], strict=True)
                each = [f"{entry.name} {value:.3g}" for entry, value in last if np.isfinite(value)]
                parts.append(f"{ends}, at the end {', '.join(each)}")
    return f"Curves, {TITLES[name]}: {'; '.join(parts)}"


def _parts(
    lines: Sequence[Line], stage: str, name: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(label, steps (N,), values (N,) or (N, C)) of each line that a stage has in a plot."""
    for key, label in _LINES.get(name, {name: ""}).items():
        steps, values = curve(lines, stage, key)
        if np.isfinite(values).any():
            values = 100 * values if name in _PERCENT else values
            if name == "share_teacher":
                values = np.maximum(values, _LEAST_SHARE)
            yield label, steps, values


def _draw_one(
    lines: Sequence[Line],
    stages: Sequence[str],
    name: str,
    classes: Sequence[Class],
    dark: bool,
) -> bytes:
    """The PNG file of one plot."""
    ground, ink, faint = _DARK if dark else _LIGHT
    by_class = name in _BY_CLASS
    figure = figures.create(_WIDTH, 4.9 if by_class else 3.1, _DPI, facecolor=ground)
    axes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for stage, axis in zip(stages, axes, strict=True):
        _style_axis(axis, ground, ink, faint)
        axis.set_xlabel(f"step of {stage}")
        axis.set_xlim(0, max(line["step"] for line in lines if line["stage"] == stage))
        for i, (label, steps, values) in enumerate(_parts(lines, stage, name)):
            if by_class:
                _draw_classes(axis, steps, values, classes, ground)
            else:
                marker = "o" if len(steps) <= _MARKED else ""
                style = {"marker": marker, "markersize": 3, "linewidth": 1.6}
                colour = _contrasting(np.array(to_rgb(_COLOURS[i])), ground)
                axis.plot(steps, values, color=colour, label=label, clip_on=False, **style)
    if name == "class_prior":
        axes[0].set_yscale("log")
    elif name == "share_teacher":
        axes[0].set_yscale("log")
        axes[0].set_ylim(_LEAST_SHARE, 100)
    else:
        axes[0].set_ylim(bottom=0, top=1 if name == "thresholds" else None)
    figure.suptitle(TITLES[name], color=ink, fontsize=12, x=0.03, ha="left")
    # Fixed margins, since finding them takes matplotlib a third of the time of all curves.
    figure.subplots_adjust(left=0.11, right=0.97, top=0.89, bottom=0.17, wspace=0.16)
    _legend(figure, axes, ink, by_class)
    return figures.png(figure)


def _style_axis(axis: Axes, ground: str, ink: str, faint: str) -> None:
    axis.set_facecolor(ground)
    axis.tick_params(colors=ink, labelsize=10, length=3)
    axis.xaxis.label.set(color=ink, fontsize=11)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(color=faint, linewidth=0.6)
    axis.spines[:].set_color(faint)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_classes(
    axis: Axes, steps: np.ndarray, values: np.ndarray, classes: Sequence[Class], ground: str
) -> None:
    """A line for each class, in its colour; values: (N, C)."""
    marker = "o" if len(steps) <= _MARKED else ""
    for index, entry in enumerate(classes):
        axis.plot(
            steps,
            values[:, index],
            _STYLES[index % len(_STYLES)],
            color=_contrasting(np.array(entry.color) / 255, ground),
            label=entry.name,
            linewidth=1.6,
            marker=marker,
            markersize=2.5,
            clip_on=False,
        )


def _legend(figure: Figure, axes: Sequence[Axes], ink: str, by_class: bool) -> None:
    """One legend of the classes below the plot, or one in each axis that has several lines."""
    if by_class:
        handles, labels = axes[-1].get_legend_handles_labels()
        lines = -(-len(labels) // 3)
        figure.subplots_adjust(bottom=min(0.6, 0.13 + 0.036 * lines))
        place = {"loc": "lower center", "ncols": 3, "bbox_to_anchor": (0.5, 0.0)}
        style = {"fontsize": 9, "labelcolor": ink, "frameon": False, "handlelength": 2.6}
        figure.legend(handles, labels, **place, **style, labelspacing=0.25)
        return
    for axis in axes:
        if len(axis.get_lines()) > 1:
            axis.legend(fontsize=10, labelcolor=ink, frameon=False)


def _contrasting(colour: np.ndarray, ground: str) -> np.ndarray:
    """A colour (3,) in 0..1, lightened or darkened until it stands out from the ground."""
    dark_ground = ground == _DARK[0]
    target = np.ones(3) if dark_ground else np.zeros(3)
    for share in np.linspace(0, 0.9, 19):
        mixed = (1 - share) * colour + share * target
        light = mixed @ (0.299, 0.587, 0.114)
        if (light >= 0.42) if dark_ground else (light <= 0.62):
            return mixed
    return mixed
