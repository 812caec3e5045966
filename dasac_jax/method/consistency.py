"""The method: a teacher's predictions on several views become pseudo labels for the student.

Arrays in, arrays out, in the paper's order: the views' geometry, fusion of the predictions over
the views, the moving class prior, pseudo labels by an adaptive threshold, the focal target loss.
V counts the views on one device, T the views of one group (the views of one image; the paper
fuses over them). A group is consecutive and, with `axis_name`, may span neighbouring devices.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dasac_jax.errors import UserError
from dasac_jax.image.label_values import IGNORE
from dasac_jax.image.warp import view_matrices, warp_affine, warp_ones
from dasac_jax.method.losses import weighted_cross_entropy
from dasac_jax.method.settings import Settings
from dasac_jax.method.view_groups import device_count, grouped

__all__ = [
    "align", "class_thresholds", "fuse_views", "pixel_weights", "pseudo_labels", "target_loss",
    "update_class_prior", "view_matrices",
]  # fmt: skip

MIN_TOTAL = 1e-3  # clamps the sum that a pooled prediction is divided by
VALID_TOTAL = 0.1  # pixels with less probability in all were seen by no view
ENTROPY_EPSILON = 1e-5
SEEN_SHARE = 1e-8  # a class's prior is initialised from its mean probability only above this


def align(probs: jax.Array, padded: jax.Array, to_reference: jax.Array) -> jax.Array:
    """Set padded pixels to 0 and warp each view's predictions to its group's reference frame.

    Args:
        probs: (V, H, W, C) float32, sums to 1 over C.
        padded: (V, H, W) bool, True where the view shows no image.
        to_reference: (V, 2, 3) float32.

    Returns:
        (V, H, W, C) float32, 0 where the view saw nothing.
    """
    return warp_affine(_masked(probs, padded), to_reference)


def fuse_views(
    probs: jax.Array,
    padded: jax.Array,
    to_reference: jax.Array,
    from_reference: jax.Array,
    *,
    group_size: int,
    pool: str = Settings.pool,
    axis_name: str | None = None,
) -> jax.Array:
    """Refined predictions: aligned, pooled over the T views of a group, warped back to each view.

    Args:
        probs: (V, H, W, C) float32, the teacher's, sums to 1 over C.
        padded: (V, H, W) bool.
        to_reference, from_reference: (V, 2, 3) float32 of `view_matrices`.
        group_size: T. V is a multiple of T or, with `axis_name`, divides it.
        pool: "average", "minentropy" (the most certain view's prediction at each pixel) or "none"
            (every view keeps its own prediction).
        axis_name: the mapped axis over devices, None on a single one.

    Returns:
        (V, H, W, C) float32, 0 where no view of the group saw anything.

    Raises:
        UserError: on an unknown `pool`, or views that form no groups over the devices.
    """
    if pool == "none":
        return _masked(probs, padded)
    if pool not in _POOLS:
        raise UserError(f"pool is {pool!r}; choose one of {', '.join([*_POOLS, 'none'])}")
    aligned = align(probs, padded, to_reference)
    # As in the authors' code, ones are warped with from_reference here, not with to_reference: of a
    # view with scale s > 1 only the middle 1/s of the frame counts.
    aligned *= warp_ones(from_reference, probs.shape[1:3])[..., None]
    groups = grouped(aligned, group_size, axis_name, "group_size")
    pooled, valid = _POOLS[pool](groups)
    views_here = len(probs) // len(groups)
    pooled, valid = (
        jnp.repeat(x, views_here, axis=0) for x in (pooled, valid.astype(probs.dtype)[..., None])
    )
    return warp_affine(pooled, from_reference) * warp_affine(valid, from_reference)


def _pool_average(aligned):
    """(G, T, H, W, C) -> the views' mean where they saw something, renormalised; its validity."""
    # Explicit additions: on CPU XLA takes five times as long to reduce over a middle axis.
    summed = sum(aligned[:, view] for view in range(aligned.shape[1]))
    total = summed.sum(-1)
    return summed / jnp.maximum(total, MIN_TOTAL)[..., None], total > VALID_TOTAL


def _pool_minentropy(aligned):
    """(G, T, H, W, C) -> the prediction of the view with the least entropy, and its validity."""
    logs = jnp.log((aligned + ENTROPY_EPSILON) / (1 + ENTROPY_EPSILON))
    entropy = -(aligned * logs).sum(-1)
    entropy = jnp.where(aligned.sum(-1) < VALID_TOTAL, 1 / ENTROPY_EPSILON, entropy)
    certain = entropy.argmin(1)[:, None, :, :, None]
    chosen = jnp.take_along_axis(aligned, certain, axis=1)[:, 0]
    return chosen, chosen.sum(-1) > VALID_TOTAL


_POOLS = {"average": _pool_average, "minentropy": _pool_minentropy}


def update_class_prior(
    prior: jax.Array,
    probs: jax.Array,
    *,
    momentum: float,
    beta: float,
    axis_name: str | None = None,
) -> jax.Array:
    """Class prior: the moving average of the share of probability that each class receives.

    Args:
        prior: (C,) float32. An entry that equals `beta` is not initialised yet: it is set to the
            class's share if that exceeds SEEN_SHARE, and else averaged like the others.
        probs: (V, H, W, C) float32, the teacher's before padded pixels are masked.
        momentum: weight of the old prior, in [0, 1].
        beta: the prior of a class before it is first seen.
        axis_name: the mapped axis over devices, None on a single one.

    Returns:
        (C,) float32.
    """
    share = _mean(_mean(_mean(probs, 1), 1), 0)
    if axis_name is not None:
        share = jax.lax.pmean(share, axis_name)
    first_seen = (share > SEEN_SHARE) & (prior == jnp.float32(beta))
    prior = jnp.where(first_seen, share, prior)
    return momentum * prior + (1 - momentum) * share


def pseudo_labels(
    probs: jax.Array,
    padded: jax.Array,
    prior: jax.Array,
    *,
    upper: float = Settings.threshold_upper,
    lower: float,
    beta: float,
    discount: bool = Settings.discount,
) -> tuple[jax.Array, jax.Array]:
    """Labels of the pixels whose confidence passes their class's adaptive threshold.

    The threshold is a share of the class's peak confidence in the view; the discount lowers it
    for classes with a small prior.

    Args:
        probs: (V, H, W, C) float32, refined predictions.
        padded: (V, H, W) bool.
        prior: (C,) float32, the class prior as just updated.
        upper: share of the peak, in [0, 1].
        lower: least threshold, in [0, 1].
        beta: scale of the discount 1 - exp(-prior / beta), which is strong for priors near or
            below beta and vanishes for priors far above it.
        discount: False leaves the prior out.

    Returns:
        labels: (V, H, W) int32, 255 where the pixel is padded or not confident enough.
        confidence: (V, H, W) float32 in [0, 1], kept at every pixel.
    """
    confidence = probs.max(-1)
    winner = probs.argmax(-1).astype(jnp.int32)
    threshold, _ = class_thresholds(
        probs, prior, upper=upper, lower=lower, beta=beta, discount=discount
    )
    threshold = jax.vmap(lambda values, classes: values[classes])(threshold, winner)
    kept = (confidence > threshold) & ~padded
    return jnp.where(kept, winner, IGNORE), confidence


def class_thresholds(
    probs: jax.Array,
    prior: jax.Array,
    *,
    upper: float,
    lower: float,
    beta: float,
    discount: bool,
) -> tuple[jax.Array, jax.Array]:
    """The confidence above which `pseudo_labels`, with the same arguments, keeps a class's pixels.

    Returns:
        threshold: (V, C) float32, at least `lower`.
        won: (V, C) bool, whether the class wins any pixel of the view.
    """
    confidence = probs.max(-1)
    won = probs.argmax(-1)[..., None] == jnp.arange(probs.shape[-1])
    peak = jnp.where(won, confidence[..., None], 0).max((1, 2))
    if discount:
        peak *= 1 - jnp.exp(-prior / beta)
    return jnp.maximum(upper * peak, lower), won.any((1, 2))


def target_loss(
    logits: jax.Array, labels: jax.Array, confidence: jax.Array, prior: jax.Array, **weighting: Any
) -> jax.Array:
    """Focal cross entropy of the student on pseudo labels, weighted by the teacher's confidence.

    logits: (V, H, W, C), the student's, upsampled to the labels' size. The others are those of
    `pixel_weights`, and so are the errors. Gives a scalar float32: the mean over all pixels of
    this device's views, ignored ones included.
    """
    return weighted_cross_entropy(
        logits, labels, pixel_weights(labels, confidence, prior, **weighting)
    )


def pixel_weights(
    labels: jax.Array,
    confidence: jax.Array,
    prior: jax.Array,
    *,
    focal_power: float,
    confidence_weighting: str = Settings.confidence_weighting,
    confidence_images: int | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """What each pixel's cross entropy counts in the target loss: focal weight × confidence.

    Args:
        labels: (V, H, W) int32, 255 ignored.
        confidence: (V, H, W) float32.
        prior: (C,) float32, the class prior; classes weigh (1 - prior) ** focal_power.
        focal_power: 0 weighs all classes alike.
        confidence_weighting: "pixel" (the paper's: each pixel's own confidence), "batch" (the
            authors' code: its mean over `confidence_images` views) or "none" (plain focal loss).
        confidence_images: how many consecutive views, counted over all devices, "batch"
            averages over; None for all of them.
        axis_name: the mapped axis over devices, None on a single one. Only "batch" needs it.

    Returns:
        (V, H, W) float32, 0 where the label is ignored.

    Raises:
        UserError: on an unknown weighting, or views that cannot be averaged as asked.
    """
    class_weight = (1 - jnp.maximum(prior, 0)) ** focal_power
    kept = labels != IGNORE
    weight = jnp.where(kept, class_weight[jnp.where(kept, labels, 0)], 0)
    if confidence_weighting == "batch":
        return weight * _batch_confidence(confidence, confidence_images, axis_name)
    if confidence_weighting == "pixel":
        return weight * confidence
    if confidence_weighting == "none":
        return weight
    raise UserError(
        f"confidence_weighting is {confidence_weighting!r}; choose pixel, batch or none"
    )


def _batch_confidence(confidence, images, axis_name):
    """(V, H, W): at each pixel the mean over the `images` consecutive views it belongs to."""
    if images is None:
        images = len(confidence) * device_count(axis_name)
    groups = grouped(confidence, images, axis_name, "confidence_images")
    return jnp.repeat(groups.mean(1), len(confidence) // len(groups), axis=0)


def _masked(probs, padded):
    return jnp.where(padded[..., None], 0, probs)


def _mean(values, axis):
    # Means of means, one axis at a time, keep float32 sums over millions of pixels accurate.
    return values.sum(axis) / values.shape[axis]
