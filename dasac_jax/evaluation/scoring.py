"""The one scoring path: networks over labelled images, to confusion counts."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.data import loader
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
from dasac_jax.evaluation import metrics
from dasac_jax.image.normalise import normalise
from dasac_jax.image.resize import resize_image
from dasac_jax.method.steps import predict_step, statistics_step
from dasac_jax.runtime import data_parallel, processes, stop_requests

Size = tuple[int, int]
Predict = Callable[[Any, np.ndarray], tuple[jax.Array, jax.Array]]
Score = Callable[[Any, Any], tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]]

FULL, RESIZE, CENTRE = "full", "resize", "centre"
_NOT_FINITE = -1  # in place of a count


def predictor(model: nn.Module) -> Predict:
    """variables, images (D, B, H, W, 3) uint8 → labels, confidence (D, B, H, W) on D devices."""

    def predict(variables, images):
        return predict_step(variables, normalise(images), model=model)

    return data_parallel.over_local_devices(predict)


def class_counts(
    predict: Predict, variables: Any, pairs: PairSource, num_classes: int, *, batch: int
) -> Iterator[np.ndarray]:
    """(B, C) int64 for each batch in order: how many pixels of its images are of each class.

    The classes are the predicted ones, at full resolution and a single scale; labels are not read.
    The last batch may have fewer images. Of several processes each gives the
    images of its part. Raises Stopped where a stop is requested, and UserError where the network's
    results are not finite.
    """
    variables = data_parallel.replicate_locally(variables)
    for items in _batches(pairs, processes.part_of(len(pairs)), batch):
        stop_requests.check()
        found = predict(variables, _to_devices(items["image"]))
        labels, confidence = jax.device_get(found)
        _check_finite(np.isfinite(confidence).all(), items)
        images = labels.reshape(-1, *labels.shape[2:])[items["valid"]]
        yield np.stack([np.bincount(image.ravel(), minlength=num_classes) for image in images])


def scorer(model: nn.Module, *, mode: str = FULL, size: Size | None = None) -> Score:
    """variables, (images, labels) with a leading axis of devices → counts, and what was scored.

    mode: "full" scores images at their size, "resize" resizes image and label to `size` first,
    "centre" cuts `size` out of the middle. Counts are (D, C, C) int32, -1 where a result of the
    network is not finite; what was scored: images (D, B, H, W, 3), labels and predictions
    (D, B, H, W).
    """

    def score(variables, batch):
        images, labels = batch
        if mode == RESIZE:
            images, labels = _resized(images, labels, size)
        elif mode == CENTRE:
            images, labels = _centre(images, size), _centre(labels, size)
        predictions, confidence = predict_step(variables, normalise(images), model=model)
        counts = metrics.confusion(labels, predictions, model.num_classes)
        counts = jnp.where(jnp.isfinite(confidence).all(), counts, _NOT_FINITE)
        return counts, (images, labels, predictions)

    return data_parallel.over_local_devices(score)


def confusion(
    score: Score,
    variables: Any,
    pairs: PairSource,
    *,
    batch: int,
    keep: int = 0,
    update: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Counts (C, C) int64 over all pairs, and image, label, prediction of the first `keep`.

    Of several processes each scores a part of the images, all get the sum, and the first one what
    is kept. update: called after each batch with how many images this process has scored. Raises
    Stopped where a stop is requested, and UserError where the network's results are not finite.
    """
    variables = data_parallel.replicate_locally(variables)
    total, kept, done = np.int64(0), [], 0
    for items in _batches(pairs, processes.part_of(len(pairs), least=keep), batch):
        stop_requests.check()
        # Padding repeats an image with every label ignored, so it counts nothing.
        counts, shown = score(variables, (_to_devices(items["image"]), _to_devices(items["label"])))
        counts = jax.device_get(counts).astype(np.int64)
        _check_finite((counts != _NOT_FINITE).all(), items)
        total = total + counts.sum(0)
        done += int(items["valid"].sum())
        if update is not None:
            update(done)
        if len(kept) < keep:
            shown = [x.reshape(-1, *x.shape[2:])[items["valid"]] for x in jax.device_get(shown)]
            kept.extend(zip(*shown, strict=True))
    return processes.total(total), kept[:keep]


def source_statistics(
    model: nn.Module, variables: Any, batches: Sequence[Any] | Iterator[Any]
) -> Any:
    """The same weights with running statistics estimated on source batches (B, H, W, 3) alone.

    What training without adaptive batch norm would normalise with: the paper's source-only row.
    """
    step = jax.jit(partial(statistics_step, model=model))
    params, batch_stats = (jax.device_put(variables[key]) for key in ("params", "batch_stats"))
    for images in batches:
        stop_requests.check()
        batch_stats = step(batch_stats, params, images)
    return {"params": variables["params"], "batch_stats": batch_stats}


def _batches(pairs, rows, batch):
    if not rows:
        return iter(())
    if len(rows) < len(pairs):
        pairs = dataclasses.replace(pairs, pairs=pairs.pairs[rows.start : rows.stop])
    devices = jax.local_device_count()
    size = -(-batch // jax.device_count()) * devices
    # With fewer images read ahead than there are threads, some of these would idle.
    return loader.evaluation_batches(pairs, size, prefetch=max(2, -(-loader.NUM_THREADS // size)))


def _check_finite(is_finite, items):
    if not is_finite:
        raise UserError(
            f"the network's results for {items['names'][0]}, or an image of the same batch, are "
            "not finite: its weights are too large to compute with; take another checkpoint"
        )


def _to_devices(array):
    """(B, …) → (D, B / D, …), on the D local devices."""
    devices = jax.local_device_count()
    return data_parallel.to_devices(array.reshape(devices, -1, *array.shape[1:]))


def _resized(images, labels, size):
    height, width = labels.shape[1:]
    # Nearest as Pillow does it: the pixel that the centre of the new one falls on.
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    resized = jnp.round(jax.vmap(lambda image: resize_image(image, size))(images))
    return resized, labels[:, rows][:, :, columns]


def _centre(array, size):
    top, left = (max(n - m, 0) // 2 for n, m in zip(array.shape[1:3], size, strict=True))
    return array[:, top : top + size[0], left : left + size[1]]
