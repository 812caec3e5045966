"""What an adaptation step can tell of itself without a label: shares of classes, and agreement.

They change nothing in training. All follow from what the step computes anyway; pixels that show no
image are left out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dasac_jax.method.consistency import class_thresholds

SHARES = ("share_teacher", "share_student")
"""Metrics (C,): each class's share of the pixels that teacher and student predict."""

PARTS = ("agreement_views", "agreement_student", "at_floor")
"""Metrics of one number, shares of the pixels.

agreement_views: a teacher's view predicts the class that all views together do. agreement_student:
the student does, in spite of the noise on its view. at_floor: the class's confidence threshold has
come down to the least one, so that the teacher is sure of nothing there.
"""

NAMES = SHARES + PARTS


def of_teacher(
    probs: jax.Array,
    refined: jax.Array,
    padded: jax.Array,
    prior: jax.Array,
    *,
    lower: float,
    **thresholds: Any,
) -> dict[str, jax.Array]:
    """Signs of the teacher's predictions, for `relative_to_seen`.

    probs: (V, H, W, C), of each view by itself. refined: (V, H, W, C), fused over the views.
    padded: (V, H, W) bool. prior: (C,). lower and thresholds: as `class_thresholds` takes them.
    """
    own, pooled = probs.argmax(-1), refined.argmax(-1)
    threshold, _ = class_thresholds(refined, prior, lower=lower, **thresholds)
    at_floor = jax.vmap(lambda low, classes: low[classes])(threshold <= lower, pooled)
    return {
        "share_teacher": _shares(own, padded, probs.shape[-1]),
        "agreement_views": _share(own == pooled, padded),
        "at_floor": _share(at_floor, padded),
    }


def of_student(logits: jax.Array, pooled: jax.Array, padded: jax.Array) -> dict[str, jax.Array]:
    """Signs of the student's predictions, for `relative_to_seen`.

    logits: (V, H, W, C). pooled: (V, H, W), the classes that the teacher's fused predictions are
    of. padded: (V, H, W) bool.
    """
    classes = logits.argmax(-1)
    return {
        "share_student": _shares(classes, padded, logits.shape[-1]),
        "agreement_student": _share(classes == pooled, padded),
    }


def relative_to_seen(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics with their signs, if there are any, as shares of the pixels that show an image.

    Until here they are shares of all pixels, of which means over devices and microbatches may be
    taken.
    """
    if "share_teacher" not in metrics:
        return metrics
    seen = jnp.maximum(metrics["share_teacher"].sum(), jnp.finfo(jnp.float32).tiny)
    return metrics | {name: metrics[name] / seen for name in NAMES}


def _shares(classes: jax.Array, padded: jax.Array, num_classes: int) -> jax.Array:
    """(C,) float32: the share of all pixels that is of each class and shows an image."""
    kept = jnp.where(padded, num_classes, classes)[..., None] == jnp.arange(num_classes)
    # Means of means, one axis at a time: see `consistency`.
    return kept.mean(2, dtype=jnp.float32).mean((0, 1))


def _share(holds: jax.Array, padded: jax.Array) -> jax.Array:
    """() float32: the share of all pixels where something holds and that show an image."""
    return (holds & ~padded).mean(2, dtype=jnp.float32).mean()
