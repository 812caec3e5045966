"""Confusion counts of label maps, and IoU, precision and recall that follow from them.

Counts stay integers until the scores are computed, so that the score of a set does not
depend on batch size, image order or the number of devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.errors import UserError


def confusion(labels: Any, predictions: Any, num_classes: int) -> jax.Array:
    """Count pixels by true and by predicted class; jit-able.

    labels: any shape, integer train ids; 255, negative and other values outside 0..C-1 are not
    scored. predictions: same shape, integers 0..C-1. Returns (C, C) int32, rows truth, columns
    prediction, exact up to 2^31 pixels of a kind: sum images on the host in int64.
    Raises UserError for shapes that differ, and for predictions outside 0..C-1 where the values
    are known (numpy arrays; inside jit such pixels are not counted).
    """
    if np.shape(labels) != np.shape(predictions):
        raise UserError(
            f"labels {np.shape(labels)} and predictions {np.shape(predictions)} differ in shape"
        )
    if isinstance(predictions, np.ndarray) and predictions.size:
        low, high = int(predictions.min()), int(predictions.max())
        if low < 0 or high >= num_classes:
            raise UserError(
                f"predictions hold {low if low < 0 else high}, which is no class: "
                f"expected 0..{num_classes - 1}"
            )
    truth = jnp.asarray(labels).astype(jnp.int32).reshape(-1)
    predicted = jnp.asarray(predictions).astype(jnp.int32).reshape(-1)
    scored = (truth >= 0) & (truth < num_classes) & (predicted >= 0) & (predicted < num_classes)
    # Pixels that do not count go to one more cell, which is cut off.
    cell = jnp.where(scored, truth * num_classes + predicted, num_classes**2)
    counts = jnp.bincount(cell, length=num_classes**2 + 1)[:-1]
    return counts.reshape(num_classes, num_classes).astype(jnp.int32)


def values_together(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(256, 256) int64: how many pixels have each pair of a true and a predicted value.

    labels, predictions: uint8 of one shape. Label maps from disk are counted with this: a device
    would only add copies, and here threads can share the work. What the values stand for can be
    decided afterwards, see `folded`. Raises UserError for shapes that differ.
    """
    if labels.shape != predictions.shape:
        raise UserError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape"
        )
    cell = labels.astype(np.uint16) * np.uint16(256) + predictions
    return np.bincount(cell.reshape(-1), minlength=256 * 256).reshape(256, 256)


def folded(
    together: np.ndarray, label_ids: np.ndarray, prediction_ids: np.ndarray, num_classes: int
) -> np.ndarray:
    """The counts of `confusion`, with one more column for pixels predicted as no class.

    together: counts of `values_together`. label_ids, prediction_ids: (256,) the class of each
    value; labels of no class, 255, are not scored. Returns (C, C + 1) int64.
    """
    by_class = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    rows, columns = (np.minimum(ids, num_classes) for ids in (label_ids, prediction_ids))
    np.add.at(by_class, (rows[:, None], columns[None, :]), together)
    return by_class[:-1]


def summarise(confusion: Any, ignore: Iterable[int] = ()) -> dict[str, Any]:
    """Scores of a confusion matrix, in 0..1.

    confusion: (C, C) counts, rows truth, columns prediction. ignore: train ids left out of the
    mean (their own scores are still given).

    Returns iou, precision, recall: (C,) float64, and miou, pixel_accuracy: float. A score that
    divides by nothing is nan: the IoU of a class that is neither there nor predicted, the
    precision of one never predicted, the recall of one that is not there. nan IoUs are left out
    of the mean, which is nan itself when no class is left.
    """
    counts = np.asarray(confusion, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UserError(f"a confusion matrix is square, got shape {counts.shape}")
    counted = np.ones(len(counts), bool)
    for index in ignore:
        if not 0 <= index < len(counts):
            raise UserError(f"class {index} to ignore does not exist: 0..{len(counts) - 1}")
        counted[index] = False
    correct, truth, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    iou = _ratio(correct, truth + predicted - correct)
    present = iou[counted & ~np.isnan(iou)]
    return {
        "iou": iou,
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, truth),
        "miou": float(present.mean()) if present.size else float("nan"),
        "pixel_accuracy": float(_ratio(correct.sum(), counts.sum())),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
