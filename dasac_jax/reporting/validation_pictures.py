"""Pictures for a validation: what the student says, and how the teacher makes pseudo labels.

The teacher's part runs the very functions of the training step, on views that depend on the seed
alone: the same ones at each validation, and none that training draws.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.data.labels import Class
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from dasac_jax.method import consistency
from dasac_jax.models import upsample
from dasac_jax.reporting import label_pictures

CELL = 384  # pixels: wider pictures are shrunk, so that a long run's files stay small
VIEW_COLUMNS = (
    "student view", "teacher", "aligned", "pooled over views", "confidence", "pseudo labels",
)  # fmt: skip

Predict = Callable[[Any, jax.Array], jax.Array]


def predictor(model: nn.Module) -> Predict:
    """variables, normalised images (B, H, W, 3) → probabilities (B, H, W, C), on one device."""

    @jax.jit
    def predict(variables, images):
        return jax.nn.softmax(upsample(model.apply(variables, images), images.shape[1:3]))

    return predict


def student(
    predict: Predict,
    variables: Any,
    scored: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    batch: int,
    classes: Sequence[Class],
) -> np.ndarray:
    """Image, truth, student's prediction and its confidence, a row for each scored image.

    scored: images (H, W, 3) in 0..255, labels and predictions (H, W). batch: images predicted at
    a time, always as many, so that one program serves them all. Returns a picture (H', W', 3).
    """
    images = np.stack([image for image, _, _ in scored])
    rows = []
    for first in range(0, len(images), batch):
        some = np.take(images, range(first, first + batch), axis=0, mode="clip")
        confidence = np.asarray(predict(variables, normalise(some)).max(-1))
        for (image, truth, labels), sure in zip(scored[first:], confidence, strict=False):
            rows.append([np.round(image).astype(np.uint8), truth, labels, sure])
    return _table(rows, ("image", "truth", "student", "confidence"), classes)


def inspector(
    model_predict: Predict,
    make_views: Callable[..., dict[str, jax.Array]],
    *,
    group_size: int,
    pool: str,
    beta: float,
    upper: float,
    lower: float,
    discount: bool,
) -> Callable[..., dict[str, np.ndarray]]:
    """What becomes of one target image: (key, image (h, w, 3) uint8, teacher, prior) → stages.

    make_views: `image.views.target_views` with its settings bound. The stages, of the T views:
    student_view (T, H, W, 3) uint8; teacher, aligned, pooled, pseudo_labels: labels (T, H, W),
    255 where there is none; confidence (T, H, W); thresholds (T, C), nan for classes that won no
    pixel. `aligned` lies in the reference frame, all others in the views.
    """
    place = np.arange(group_size, dtype=np.int32)
    make = jax.jit(lambda key, image: make_views(key, image[None], place))
    fuse = jax.jit(
        partial(
            _fused, group_size=group_size, pool=pool,
            settings={"beta": beta, "upper": upper, "lower": lower, "discount": discount},
        )
    )  # fmt: skip

    def inspect(key, image, teacher, prior):
        made = make(key, image)
        probs = model_predict(teacher, made["teacher_view"])
        return {name: np.asarray(x) for name, x in fuse(made, probs, prior).items()}

    return inspect


def _fused(made, probs, prior, *, group_size, pool, settings):
    """The steps from the teacher's predictions to pseudo labels, each of them kept."""
    padded, to_reference = made["padded"], made["to_reference"]
    refined = consistency.fuse_views(
        probs, padded, to_reference, made["from_reference"], group_size=group_size, pool=pool
    )
    labels, confidence = consistency.pseudo_labels(refined, padded, prior, **settings)
    thresholds, won = consistency.class_thresholds(refined, prior, **settings)
    image = made["student_view"] * jnp.array(IMAGENET_STD) + jnp.array(IMAGENET_MEAN)
    return {
        "student_view": jnp.round(255 * jnp.clip(image, 0, 1)).astype(jnp.uint8),
        "teacher": _labels(jnp.where(padded[..., None], 0, probs)),
        "aligned": _labels(consistency.align(probs, padded, to_reference)),
        "pooled": _labels(refined),
        "confidence": confidence,
        "pseudo_labels": labels,
        "thresholds": jnp.where(won, thresholds, jnp.nan),
    }


def _labels(probs):
    """(..., C) → (...,) int32, 255 where no view saw anything."""
    seen = probs.sum(-1) > consistency.VALID_TOTAL
    return jnp.where(seen, probs.argmax(-1).astype(jnp.int32), consistency.IGNORED)


def teacher_views(stages: Mapping[str, np.ndarray], classes: Sequence[Class]) -> np.ndarray:
    """A picture (H', W', 3) of what `inspector` gives, a row for each view."""
    names = ("student_view", "teacher", "aligned", "pooled", "confidence", "pseudo_labels")
    rows = [list(row) for row in zip(*(stages[name] for name in names), strict=True)]
    return _table(rows, VIEW_COLUMNS, classes)


def mean_thresholds(inspected: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """(C,): thresholds averaged over the views in which a class won a pixel, nan without any."""
    thresholds = np.concatenate([stages["thresholds"] for stages in inspected])
    won = ~np.isnan(thresholds)
    total = np.where(won, thresholds, 0).sum(0)
    return np.where(won.any(0), total / np.maximum(won.sum(0), 1), np.nan)


def _table(rows, titles, classes) -> np.ndarray:
    table = label_pictures.panel([list(_cells(row, classes)) for row in rows], titles, classes)
    bar = label_pictures.heat_bar(table.shape[1], "confidence")
    return np.concatenate([table, bar])


def _cells(row, classes) -> Iterator[np.ndarray]:
    """Pictures of images, label maps and confidences, told apart by their shape and type."""
    for cell in row:
        cell = label_pictures.shrunk(cell, CELL)
        if cell.ndim == 3:
            yield cell
        elif np.issubdtype(cell.dtype, np.floating):
            yield label_pictures.heat(cell)
        else:
            yield label_pictures.colourise(cell, classes)
