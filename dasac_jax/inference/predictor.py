"""Label maps at full resolution, of whole images or sliding windows, over scales and flips."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.image.resize import resize_image
from dasac_jax.inference.streaming import prefetch
from dasac_jax.models import logits_at
from dasac_jax.models.layers import corner_aligned_matrix
from dasac_jax.runtime import compiled_sizes, data_parallel

Size = tuple[int, int]

SMALLEST = 32
"""The smallest side in pixels: below it the poolings of a network of stride 8 have no input."""


@dataclass(frozen=True)
class Options:
    """How images are predicted.

    scales: factors, 0.1 to 10, by which the image is resized; the class probabilities are
    averaged. flip: whether to average with the mirror image, too. window: (h, w) in pixels of the
    windows that images are cut into; None: whole images. overlap: the least share, 0 to 0.9, of a
    window's side in common with the next; there, probabilities are averaged. batch: images, or
    windows, per device at a time. probabilities: whether to return those of all classes, too.
    Raises UserError for a value outside its range.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: Size | None = None
    overlap: float = 0.25
    batch: int = 1
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not all(0.1 <= scale <= 10 for scale in self.scales):
            raise UserError(f"scales {self.scales}: numbers between 0.1 and 10 are needed")
        if self.window is not None and min(self.window) < SMALLEST:
            raise UserError(f"window {self.window}: at least {SMALLEST} pixels a side are needed")
        if not 0 <= self.overlap <= 0.9:
            raise UserError(f"overlap {self.overlap}: a share between 0 and 0.9 is needed")
        if self.batch < 1:
            raise UserError(f"batch {self.batch}: at least 1 image per device is needed")


class Prediction(NamedTuple):
    """labels (B, H, W) uint8 train ids; confidence (B, H, W) float32 in [0, 1].

    probabilities: (B, H, W, C) float16, or None where they were not asked for.
    """

    labels: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None


def check_finite(confidence: np.ndarray, what: str) -> None:
    """Raise UserError where confidences are not finite: the labels then are 0 and mean nothing.

    what: the image or images that were predicted, as the message is to call them.
    """
    if not np.isfinite(confidence).all():
        share = 100 * np.mean(~np.isfinite(confidence))
        raise UserError(
            f"the network's results for {what} are not finite ({share:.0f} % of the pixels): its "
            "weights are too large to compute with; take another checkpoint"
        )


AsyncPredict = Callable[[np.ndarray], Callable[[], Prediction]]
"""Starts predicting images (B, H, W, 3) uint8; what it returns waits for the prediction."""


def create(model: nn.Module, variables: Any, options: Options) -> AsyncPredict:
    """A function that predicts batches of images on all local devices.

    A batch has at most `batch_size(options)` images. The confidence is the (averaged) probability
    of the label. Images may have any size: each size is compiled once (with windows only the
    window's), and images smaller than the network or the window takes are extended by their border
    pixels for the computation. Safe to call from many threads.
    """
    variables = data_parallel.replicate_locally(variables)
    if options.window is None:
        return _whole_images(model, variables, options)
    return _windows(model, variables, options)


def batch_size(options: Options) -> int:
    """Images that are predicted together on all local devices."""
    return jax.local_device_count() * options.batch


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """The pixels at which windows begin on an axis: evenly spread, from border to border.

    There are as few windows as overlap by at least the share `overlap`; one, at 0, where the axis
    is not longer than the window.
    """
    spare = length - window
    if spare <= 0:
        return [0]
    gaps = math.ceil(spare / max(1.0, window * (1 - overlap)))
    return [round(i * spare / gaps) for i in range(gaps + 1)]


def _whole_images(model: nn.Module, variables: Any, options: Options) -> AsyncPredict:
    def run(variables, images):
        logits = functools.partial(_logits, model, variables, size=images.shape[1:3])
        if options.scales == (1.0,) and not options.flip:
            scores = logits(images)
            probs = jax.nn.softmax(scores)
        else:
            scores = probs = _averaged(logits, images, options)
        labels = scores.argmax(-1).astype(jnp.uint8)
        kept = probs.astype(jnp.float16) if options.probabilities else None
        return labels, probs.max(-1), kept

    program = _program(run)
    smallest = math.ceil(SMALLEST / min(options.scales))

    def start(images: np.ndarray) -> Callable[[], Prediction]:
        count, height, width = images.shape[:3]
        images = _extended(images, (smallest, smallest))
        found = program(variables, _by_device(images, batch_size(options)))
        return lambda: Prediction(
            *(x if x is None else _as_batch(x)[:count, :height, :width] for x in found)
        )

    return start


def _program(run: Callable[[Any, jax.Array], Any]) -> Callable[[Any, np.ndarray], Any]:
    """`run(variables, images)` on all local devices, for images (D, b, H, W, 3) on the host."""
    program = data_parallel.over_local_devices(run)
    make_room = compiled_sizes.limiter()

    def call(variables, images):
        images = data_parallel.to_devices(images)
        if make_room(images.shape):
            data_parallel.compile_ahead(program, variables, images)
        return program(variables, images)

    return call


def _windows(model: nn.Module, variables: Any, options: Options) -> AsyncPredict:
    window = options.window

    def run(variables, images):
        logits = functools.partial(_logits, model, variables, size=window)
        return _averaged(logits, images, Options(flip=options.flip))

    program = _program(run)

    def probabilities(image: np.ndarray) -> np.ndarray:
        """Those (H, W, C) float32 of an image (H, W, 3)."""
        total = None
        for scale in options.scales:
            size = _scaled(image.shape[:2], scale)[::-1]
            scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            probs = np.zeros((*scaled.shape[:2], model.num_classes), np.float32)
            _slide(lambda crops: program(variables, crops), scaled, options, into=probs)
            probs = _stretched(probs, image.shape[:2])
            total = probs if total is None else np.add(total, probs, out=total)
        total /= np.float32(len(options.scales))
        return total

    def predict_one(image: np.ndarray) -> Prediction:
        probs = probabilities(image)  # large, so that only those of one image are held at a time
        kept = probs.astype(np.float16) if options.probabilities else None
        return Prediction(probs.argmax(-1).astype(np.uint8), probs.max(-1), kept)

    def start(images: np.ndarray) -> Callable[[], Prediction]:
        each = zip(*map(predict_one, images), strict=True)
        found = Prediction(*(None if x[0] is None else np.stack(x) for x in each))
        return lambda: found

    return start


def _slide(program, image: np.ndarray, options: Options, *, into: np.ndarray) -> None:
    """Write an image's probabilities (H, W, C), averaged over the windows on each pixel, `into`.

    program: predicts windows (D, b, h, w, 3) on D devices. image: (H, W, 3). into: zeros.
    """
    (height, width), size = options.window, batch_size(options)
    image = _extended(image[None], options.window)[0]
    corners = [
        (top, left)
        for top in window_starts(image.shape[0], height, options.overlap)
        for left in window_starts(image.shape[1], width, options.overlap)
    ]

    def started() -> Iterator[tuple[list[tuple[int, int]], jax.Array]]:
        for i in range(0, len(corners), size):
            chunk = corners[i : i + size]
            crops = np.stack([image[y : y + height, x : x + width] for y, x in chunk])
            yield chunk, program(_by_device(crops, size))

    windows_on_pixel = np.zeros((*into.shape[:2], 1), np.float32)
    for chunk, found in prefetch(started()):
        # Not strict: the last batch is padded with windows that belong to no corner.
        for (y, x), probs in zip(chunk, _as_batch(found), strict=False):
            part = into[y : y + height, x : x + width]
            part += probs[: part.shape[0], : part.shape[1]]
            windows_on_pixel[y : y + height, x : x + width] += 1
    into /= windows_on_pixel


def _logits(model, variables, images, *, size: Size) -> jax.Array:
    return logits_at(model, model.apply(variables, normalise(images)), size)


def _averaged(logits: Callable[[jax.Array], jax.Array], images: jax.Array, options: Options):
    """Mean class probabilities (B, H, W, C) over the scales, and over mirror images."""
    total, count = jnp.float32(0), 0
    for scale in options.scales:
        size = _scaled(images.shape[1:3], scale)
        scaled = images
        if size != images.shape[1:3]:
            # Rounded to whole levels, as in an image file of that size.
            scaled = jnp.round(jax.vmap(lambda image, size=size: resize_image(image, size))(images))
        total, count = total + jax.nn.softmax(logits(scaled)), count + 1
        if options.flip:
            mirrored = jax.nn.softmax(logits(scaled[:, :, ::-1]))
            total, count = total + mirrored[:, :, ::-1], count + 1
    return total / count


def _scaled(size: Size, scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _stretched(probs: np.ndarray, size: Size) -> np.ndarray:
    """Resize (h, w, C) to (H, W, C), bilinear with aligned corners, as logits are upsampled."""
    if probs.shape[:2] == size:
        return probs
    rows = corner_aligned_matrix(probs.shape[0], size[0])
    columns = corner_aligned_matrix(probs.shape[1], size[1])
    probs = np.tensordot(rows, probs, axes=1)
    return np.matmul(columns, probs)


def _extended(images: np.ndarray, smallest: Size) -> np.ndarray:
    """Images (B, H, W, 3) of at least that size: border pixels repeat at the bottom and right."""
    below, beside = (max(0, n - m) for n, m in zip(smallest, images.shape[1:3], strict=True))
    if not below and not beside:
        return images
    return np.pad(images, ((0, 0), (0, below), (0, beside), (0, 0)), mode="edge")


def _by_device(images: np.ndarray, count: int) -> np.ndarray:
    """Images (B, …) as (D, b, …) for D devices, padded to `count` with the last image."""
    padding = np.repeat(images[-1:], count - len(images), axis=0)
    return np.concatenate([images, padding]).reshape(
        jax.local_device_count(), -1, *images.shape[1:]
    )


def _as_batch(array: jax.Array) -> np.ndarray:
    """(D, b, …) of D devices → (D · b, …) on the host."""
    array = np.asarray(array)
    return array.reshape(-1, *array.shape[2:])
