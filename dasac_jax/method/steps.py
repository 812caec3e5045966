"""The training steps: pure functions of a state and a batch on one device.

With `axis_name` they run under `jax.pmap`: losses, gradients, batch statistics and the class
prior are means over all devices, so that results do not depend on how many there are.

A step whose loss, gradient, statistics or prior is not finite is skipped: the state keeps all that
it would have changed, but for the step counter, so that the data go on. The metrics say `skipped`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from dasac_jax.method import consistency, guard, microbatches, trees
from dasac_jax.method.losses import cross_entropy, weighted_cross_entropy
from dasac_jax.method.state import TrainState
from dasac_jax.models import upsample
from dasac_jax.models.layers import materialised

Metrics = dict[str, jax.Array]


def baseline_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of supervised training with adaptive batch norm (the paper's baseline).

    batch: source_image (B, H, W, 3) float32, source_label (B, H, W) int32,
    target_image (B', H, W, 3) float32; optionally target_label (B', H, W), for its loss in the
    metrics only, and source_keys, target_keys (B,) that switch dropout on.
    """

    def source_loss(params):
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch["source_image"],
            train=True,
            dropout_keys=batch.get("source_keys"),
            mutable=["batch_stats"],
        )
        labels = batch["source_label"]
        return cross_entropy(upsample(logits, labels.shape[1:]), labels), updated["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(source_loss, has_aux=True)(state.params)
    grads = _mean_over_devices(grads, axis_name)
    params, opt_state = _update(state, grads, optimiser)
    metrics = {"loss_source": loss}

    # The target passes through the updated network, for its batch statistics alone.
    logits, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["target_image"],
        train=True,
        dropout_keys=batch.get("target_keys"),
        mutable=["batch_stats"],
    )
    if "target_label" in batch:
        labels = batch["target_label"]
        metrics["loss_target"] = cross_entropy(upsample(logits, labels.shape[1:]), labels)
    metrics = _mean_over_devices(metrics, axis_name)
    new = {"params": params, "batch_stats": updated["batch_stats"], "opt_state": opt_state}
    sound = guard.is_sound(metrics["loss_source"], grads, new["batch_stats"])
    new = guard.choose(sound, new, {name: getattr(state, name) for name in new})
    return state.replace(step=state.step + 1, **new), metrics | {"skipped": guard.skipped(sound)}


def adapt_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    group_size: int,
    target_weight: float,
    threshold_lower: float,
    threshold_upper: float = 0.75,
    steps_per_epoch: int,
    teacher_every_steps: int = 100,
    teacher_momentum: float = 0.99,
    prior_momentum: float = 0.99,
    beta: float = 1e-3,
    focal_power: float = 3.0,
    pool: str = "average",
    discount: bool = True,
    confidence_weighting: str = "pixel",
    confidence_images: int | None = None,
    train_on_source: bool = True,
    phase_in_steps: int = 0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of self-supervised augmentation consistency (the paper's method, in its order).

    `model` keeps its running statistics (`frozen_norm`). batch: source_image (B, H, W, 3),
    source_label (B, H, W) int32; for the V views on this device student_view, teacher_view
    (V, H, W, 3), padded (V, H, W) bool, to_reference, from_reference (V, 2, 3); optionally
    target_label (V, H, W), for its loss in the metrics only, and source_keys (B,), target_keys
    (V,) that switch dropout on. `accumulate` is the number of equal parts that the networks take
    the batch in, one after the other; it saves memory and changes nothing but rounding.
    """
    size = batch["student_view"].shape[1:3]
    microbatches.check(accumulate, len(batch["source_image"]), len(batch["student_view"]))

    # 1. The teacher follows the student.
    teacher, prior_before = _update_teacher(
        state, steps_per_epoch, teacher_every_steps, teacher_momentum, beta
    )

    # 2. The teacher's prediction, and the class prior.
    def predict(views):
        return jax.nn.softmax(upsample(model.apply(teacher, views), size))

    probs = microbatches.map_in_parts(predict, batch["teacher_view"], accumulate)
    class_prior = consistency.update_class_prior(
        prior_before, probs, momentum=prior_momentum, beta=beta, axis_name=axis_name
    )

    # 3., 4. Aligned and pooled over the views, and brought back to each of them.
    refined = consistency.fuse_views(
        probs,
        batch["padded"],
        batch["to_reference"],
        batch["from_reference"],
        group_size=group_size,
        pool=pool,
        axis_name=axis_name,
    )

    # 5. Pseudo labels.
    labels, confidence = consistency.pseudo_labels(
        refined,
        batch["padded"],
        class_prior,
        upper=threshold_upper,
        lower=threshold_lower,
        beta=beta,
        discount=discount,
    )

    # 6. One update for the source loss and the focal loss on pseudo labels.
    weight = consistency.pixel_weights(
        labels,
        confidence,
        class_prior,
        focal_power=focal_power,
        confidence_weighting=confidence_weighting,
        confidence_images=confidence_images,
        axis_name=axis_name,
    )
    if phase_in_steps:
        target_weight *= jnp.minimum(1.0, (state.step + 1) / phase_in_steps)

    def total_loss(params, batch):
        source_logits, logits = _student_logits(
            model, params, state.batch_stats, batch, size, train_on_source
        )
        metrics = {
            "loss_target": weighted_cross_entropy(logits, batch["pseudo_label"], batch["weight"])
        }
        total = target_weight * metrics["loss_target"]
        if train_on_source:
            metrics["loss_source"] = cross_entropy(source_logits, batch["source_label"])
            total = metrics["loss_source"] + total
        if "target_label" in batch:
            metrics["loss_target_supervised"] = cross_entropy(logits, batch["target_label"])
        return total, metrics

    labelled = batch | {"pseudo_label": labels, "weight": weight}
    grads, metrics = microbatches.gradient_in_parts(total_loss, state.params, labelled, accumulate)
    grads = _mean_over_devices(grads, axis_name)
    params, opt_state = _update(state, grads, optimiser)
    metrics["labelled"] = (labels != consistency.IGNORED).mean()
    metrics = _mean_over_devices(metrics, axis_name)
    metrics["teacher_distance"] = _distance(teacher, state.student)
    losses = [metrics[name] for name in ("loss_source", "loss_target") if name in metrics]
    sound = guard.is_sound(losses, grads, class_prior)
    new = {"params": params, "class_prior": class_prior, "opt_state": opt_state}
    old = {**vars(state), "class_prior": prior_before}
    new = guard.choose(sound, new, {name: old[name] for name in new})
    # The teacher followed weights of earlier steps, all of them sound: that holds in any case.
    state = state.replace(teacher=teacher, step=state.step + 1, **new)
    return state, metrics | {"skipped": guard.skipped(sound)}


def on_views(
    step: Callable[..., tuple[TrainState, Metrics]],
    make_views: Callable[..., dict[str, jax.Array]],
    stage: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`step` preceded by the making of its views: (state, decoded images) → state, metrics.

    Whatever is random follows from the state's seed and step, the stage and the global item.
    """

    def run(state, raw):
        key = jax.random.fold_in(jax.random.key(state.seed), stage)
        views_key, source_key, target_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        target_item = raw["target_view"] if "target_view" in raw else raw["target_item"]
        fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        batch = make_views(views_key, raw) | {
            "source_keys": fold_in(source_key, raw["source_item"]),
            "target_keys": fold_in(target_key, target_item),
        }
        return step(state, batch)

    return run


def predict_step(
    variables: dict[str, Any],
    images: jax.Array,
    *,
    model: nn.Module,
    size: tuple[int, int] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Labels (B, H, W) int32 and confidence (B, H, W) in [0, 1] of images (B, H, W, 3).

    Single scale, at the images' size unless `size` (H, W) says otherwise.
    """
    logits = upsample(model.apply(variables, images), size or images.shape[1:3])
    return logits.argmax(-1).astype(jnp.int32), jax.nn.softmax(logits).max(-1)


def statistics_step(
    batch_stats: dict[str, Any],
    params: dict[str, Any],
    images: jax.Array,
    *,
    model: nn.Module,
) -> dict[str, Any]:
    """Running statistics after one more batch of images (B, H, W, 3), the weights untouched."""
    _, updated = model.apply(
        {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
    )
    return updated["batch_stats"]


def _update(state, grads, optimiser):
    updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), opt_state


def _update_teacher(state, steps_per_epoch, every, momentum, beta):
    """ψ ← γψ + (1−γ)θ every so often in an epoch; at the very first step ψ ← θ and χ ← β."""

    def follow():
        first = state.step == 0

        def average(ours, theirs):
            # Materialised: otherwise XLA puts the sums into each leaf's own copy.
            return materialised(jnp.where(first, theirs, momentum * ours + (1 - momentum) * theirs))

        teacher = trees.map_numbers(average, state.teacher, state.student)
        return teacher, jnp.where(first, jnp.float32(beta), state.class_prior)

    due = (state.step % steps_per_epoch) % every == 0
    return lax.cond(due, follow, lambda: (state.teacher, state.class_prior))


def _student_logits(model, params, batch_stats, batch, size, with_source):
    """Upsampled logits of source images and of student views; frozen norms allow a single pass."""
    names = ("source", "target") if with_source else ("target",)
    images = {"source": batch["source_image"], "target": batch["student_view"]}
    keys = None
    if f"{names[0]}_keys" in batch:
        keys = jnp.concatenate([batch[f"{name}_keys"] for name in names])
    logits = model.apply(
        {"params": params, "batch_stats": batch_stats},
        jnp.concatenate([images[name] for name in names]),
        train=True,
        dropout_keys=keys,
    )
    logits = upsample(logits, size)
    count = len(batch["source_image"]) if with_source else 0
    return logits[:count], logits[count:]


def _distance(teacher, student):
    """Sum over all tensors of ‖ψ − θ‖₂."""
    difference = trees.map_numbers(jnp.subtract, teacher, student)
    return jnp.sqrt(trees.square_norms(difference)).sum()


def _mean_over_devices(metrics, axis_name):
    return metrics if axis_name is None else lax.pmean(metrics, axis_name)
