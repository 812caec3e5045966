"""Whether folders of label maps can hold the kind of ids that they are said to hold.

Ids of another kind would score as 0 % or as nothing at all, which says nothing of the predictions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dasac_jax.data import labels
from dasac_jax.data.label_survey import placeholders, shares
from dasac_jax.errors import UserError
from dasac_jax.evaluation.metrics import folded
from dasac_jax.files import CITYSCAPES_LABEL

TRAIN, CITYSCAPES = "train", "cityscapes"
IDS = (TRAIN, CITYSCAPES)

LARGEST_LABEL_ID = max(entry.label_id for entry in labels.CLASSES)

_LARGEST_BORDER = 3  # Cityscapes ids 0 to 3 are unlabelled, the car itself, borders
_CLASS_IDS = {entry.label_id for entry in labels.CLASSES}
_WORDS = {TRAIN: "train ids", CITYSCAPES: "Cityscapes ids"}
_LISTED = 5  # values of either side, where both are listed
# Shares of right pixels between which no prediction comes to lie by being bad.
_CLEARLY_RIGHT, _CLEARLY_WRONG = 0.5, 0.1


class Kinds(NamedTuple):
    """What predictions and truth hold: TRAIN or CITYSCAPES each."""

    ids: str
    truth_ids: str


def table(kind: str, num_classes: int) -> np.ndarray:
    """(256,) uint8: the train id that each stored value stands for, 255 for no class."""
    if kind == CITYSCAPES:
        return labels.train_ids(np.arange(256))
    return labels.table({i: i for i in range(num_classes)})


def counts(together: np.ndarray, kinds: Kinds, num_classes: int) -> np.ndarray:
    """(C, C + 1) int64 pixels by class of `metrics.values_together`, read as these kinds."""
    tables = table(kinds.truth_ids, num_classes), table(kinds.ids, num_classes)
    return folded(together, *tables, num_classes)


def check(together: np.ndarray, kinds: Kinds, num_classes: int, truth_names: Sequence[str]) -> None:
    """Raise UserError, with the values found, where a score would be one of nothing.

    together: (256, 256) pixels of all files by true and predicted value. truth_names: of the true
    files. That is where no true pixel stands for a class, or no predicted one; where the truth is
    the placeholders of Cityscapes' test split; where label maps of other classes are masks of 0 and
    255; and where the numbers fit another kind of ids.
    """
    truth, predicted = together.sum(1), together.sum(0)
    values = set(np.flatnonzero(truth).tolist())
    as_shipped = kinds.truth_ids == CITYSCAPES or all(
        name.endswith(f"{CITYSCAPES_LABEL}.png") for name in truth_names
    )
    found = counts(together, kinds, num_classes)
    if num_classes == len(labels.CLASSES) and as_shipped and (problem := placeholders(values)):
        raise UserError(f"truth: {problem[0]}; they hold {shares(truth)}: {problem[1]}")
    for side, pixels in (("truth", truth), ("predictions", predicted)):
        # 255 is no class, so that of a mask of 0 and 255 one class alone would be scored.
        if num_classes != len(labels.CLASSES) and set(np.flatnonzero(pixels)) == {0, labels.IGNORE}:
            raise UserError(
                f"{side}: they hold 0 and 255 alone, {shares(pixels)}, and 255 stands for no "
                "class: if these are masks, store 1 instead of 255"
            )
    if not found.sum():
        raise UserError(
            f"truth: no pixel stands for a class, read as {_WORDS[kinds.truth_ids]}; the label "
            f"maps hold {shares(truth)}: give --truth-ids, or the labels themselves"
        )
    if better := _better(together, kinds, num_classes, _right(found)):
        raise UserError(better)
    if not found[:, :-1].any():
        raise UserError(
            f"predictions: no scored pixel is predicted as a class, read as {_WORDS[kinds.ids]}; "
            f"they hold {shares(predicted)}: give --ids, or other predictions"
        )


def _better(together: np.ndarray, kinds: Kinds, num_classes: int, right: float) -> str | None:
    """What to say where other kinds of ids explain the numbers, and these do not."""
    shares_right = {
        other: _right(counts(together, other, num_classes))
        for other in _others(together, kinds, num_classes)
    }
    other = max(shares_right, key=shares_right.get, default=kinds)
    then = shares_right.get(other, 0.0)
    clear = then > _CLEARLY_RIGHT and right < _CLEARLY_WRONG
    # Where both sides are train ids said to be others, they agree in the wrong classes as well.
    if not clear and not (then and then >= right and _are_train_ids(together, kinds, other)):
        return None
    said, instead = (f"{_WORDS[x.ids]}, the truth {_WORDS[x.truth_ids]}" for x in (kinds, other))
    return (
        f"{100 * right:.1f} % of the scored pixels are right if predictions hold {said}, but "
        f"{100 * then:.1f} % if they hold {instead}: give --ids {other.ids} "
        f"--truth-ids {other.truth_ids}; there are {shares(together.sum(0), most=_LISTED)} in the "
        f"predictions, {shares(together.sum(1), most=_LISTED)} in the truth"
    )


def _others(together: np.ndarray, kinds: Kinds, num_classes: int) -> Iterator[Kinds]:
    """The other kinds that the values found can be of."""
    sides = []
    for values in (together.sum(0), together.sum(1)):
        largest = {TRAIN: num_classes - 1, CITYSCAPES: LARGEST_LABEL_ID}
        fits = [
            kind
            for kind in IDS
            if not values[largest[kind] + 1 : labels.IGNORE].any()
            and (kind == TRAIN or not values[labels.IGNORE])
        ]
        sides.append(fits)
    for pair in itertools.product(*sides):
        if Kinds(*pair) != kinds and num_classes == len(labels.CLASSES):
            yield Kinds(*pair)


def _are_train_ids(together: np.ndarray, said: Kinds, instead: Kinds) -> bool:
    """Whether the sides that differ are said to hold Cityscapes ids, and look like train ids.

    That is, the values are below 19 alone, and some are those of no class. Cityscapes ids would be
    so only in streets without sky, plants and cars, and in predictions without any meaning.
    """
    for before, after, axis in zip(said, instead, (0, 1), strict=True):
        values = set(np.flatnonzero(together.sum(axis)).tolist())
        no_class = {value for value in values - _CLASS_IDS if value > _LARGEST_BORDER}
        below = max(values) < len(labels.CLASSES)
        if before != after and not (before == CITYSCAPES and no_class and below):
            return False
    return said != instead


def _right(found: np.ndarray) -> float:
    """The share of scored pixels whose class is predicted."""
    return float(np.trace(found[:, :-1]) / max(found.sum(), 1))
