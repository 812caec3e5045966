"""Pictures of a validation: the student's predictions, and how the teacher makes pseudo labels.

The teacher's part calls the functions of the training step itself. The views that it is shown
depend on the seed alone: they are the same at each validation, and not those of training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.data.labels import Class
from dasac_jax.image.label_values import IGNORE
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from dasac_jax.method import consistency
from dasac_jax.models import logits_at
from dasac_jax.reporting import label_pictures

VIEW_COLUMNS = (
    "student view", "teacher", "aligned", "pooled over views", "confidence", "pseudo labels",
)  # fmt: skip

Predict = Callable[[Any, jax.Array], jax.Array]


def predictor(model: nn.Module) -> Predict:
    """A compiled function: variables, normalised images (B, H, W, 3) → probabilities (B, H, W, C).

    It runs on one device.
    """

    @jax.jit
    def predict(variables, images):
        logits = model.apply(variables, images)
        return jax.nn.softmax(logits_at(model, logits, images.shape[1:3]))

    return predict


def student(
    predict: Predict,
    variables: Any,
    scored: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    batch: int,
    classes: Sequence[Class],
) -> np.ndarray:
    """Image, truth, the student's prediction and its confidence, a row for each scored image.

    scored: images (H, W, 3) in 0..255, labels and predictions (H, W). batch: images predicted at
    a time; the last batch is filled up, so that one compiled program serves all. Returns a picture
    (H', W', 3) uint8.
    """
    images = np.stack([image for image, _, _ in scored])
    rows = []
    for first in range(0, len(images), batch):
        part = np.take(images, range(first, first + batch), axis=0, mode="clip")
        confidence = np.asarray(predict(variables, normalise(part)).max(-1))
        for (image, truth, labels), certainty in zip(scored[first:], confidence, strict=False):
            rows.append([np.round(image).astype(np.uint8), truth, labels, certainty])
    return _panel(rows, ("image", "truth", "student", "confidence"), classes)


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
    """A function that makes one target image's pseudo labels and keeps every stage of the way.

    make_views: `image.views.target_views` with its settings bound. The other arguments are those
    of `consistency.fuse_views` and `consistency.pseudo_labels`. The function takes a key, an image
    (h, w, 3) uint8, the teacher's variables and the class prior (C,); it returns, of the T views:
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
    """The stages of `inspector`, from the views and the teacher's probabilities (T, H, W, C)."""
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
    """Probabilities (..., C) → labels (...,) int32, 255 where no view saw the pixel."""
    seen = probs.sum(-1) > consistency.VALID_TOTAL
    return jnp.where(seen, probs.argmax(-1).astype(jnp.int32), IGNORE)


def teacher_views(stages: Mapping[str, np.ndarray], classes: Sequence[Class]) -> np.ndarray:
    """A picture (H', W', 3) uint8 of what `inspector`'s function returns, a row for each view."""
    names = ("student_view", "teacher", "aligned", "pooled", "confidence", "pseudo_labels")
    rows = [list(row) for row in zip(*(stages[name] for name in names), strict=True)]
    return _panel(rows, VIEW_COLUMNS, classes)


def mean_thresholds(inspected: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Thresholds (C,) averaged over the views in which a class won a pixel, nan where in none."""
    thresholds = np.concatenate([stages["thresholds"] for stages in inspected])
    won = ~np.isnan(thresholds)
    total = np.where(won, thresholds, 0).sum(0)
    return np.where(won.any(0), total / np.maximum(won.sum(0), 1), np.nan)


def _panel(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], classes: Sequence[Class]
) -> np.ndarray:
    """Images, label maps and confidences under their titles, with keys to the colours below."""
    table = label_pictures.panel([list(_cells(row, classes)) for row in rows], titles, classes)
    bar = label_pictures.heat_bar(table.shape[1], "confidence")
    return np.concatenate([table, bar])


def _cells(row: Sequence[np.ndarray], classes: Sequence[Class]) -> Iterator[np.ndarray]:
    """Pictures of images (H, W, 3), label maps (H, W) of integers and confidences of floats."""
    for cell in row:
        cell = label_pictures.shrunk(cell)
        if cell.ndim == 3:
            yield cell
        elif np.issubdtype(cell.dtype, np.floating):
            yield label_pictures.heat(cell)
        else:
            yield label_pictures.colourise(cell, classes)
