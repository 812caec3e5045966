"""The training steps: pure functions of a state and a batch on one device.

With `axis_name` they run under `jax.pmap`: losses, gradients, batch statistics and the class
prior are means over all devices, so that results do not depend on how many there are.

If the loss, gradient, batch statistics or class prior is not finite, the update is discarded. Only
the step counter advances and, when adapting, the teacher, which follows weights of earlier steps.
The metric `skipped` is 1 then.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from dasac_jax.image.label_values import IGNORE
from dasac_jax.method import consistency, microbatches, signs, trees
from dasac_jax.method.losses import cross_entropy, weighted_cross_entropy
from dasac_jax.method.settings import Settings
from dasac_jax.method.state import TrainState
from dasac_jax.models import logits_at

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

    Without target images it is supervised training alone, for networks without batch norm.

    batch: source_image (B, H, W, 3) float32, source_label (B, H, W) int32,
    target_image (B', H, W, 3) float32 or none; optionally target_label (B', H, W), for its loss in
    the metrics only, and random keys source_keys (B,), target_keys (B',) that switch dropout on.
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
        logits = logits_at(model, logits, labels.shape[1:])
        return cross_entropy(logits, labels), updated.get("batch_stats", {})

    (loss, batch_stats), grads = jax.value_and_grad(source_loss, has_aux=True)(state.params)
    grads = _mean_over_devices(grads, axis_name)
    params, opt_state = _update(state, grads, optimiser)
    metrics = {"loss_source": loss}

    if "target_image" in batch:
        # The target passes through the updated network, for its batch statistics alone.
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["target_image"],
            train=True,
            dropout_keys=batch.get("target_keys"),
            mutable=["batch_stats"],
        )
        batch_stats = updated.get("batch_stats", {})
        if "target_label" in batch:
            labels = batch["target_label"]
            logits = logits_at(model, logits, labels.shape[1:])
            metrics["loss_target"] = cross_entropy(logits, labels)
    metrics = _mean_over_devices(metrics, axis_name)
    new = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state}
    finite = trees.is_finite(metrics["loss_source"], grads, new["batch_stats"])
    new = trees.select(finite, new, {name: getattr(state, name) for name in new})
    return state.replace(step=state.step + 1, **new), metrics | {"skipped": _skipped(finite)}


def adapt_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    steps_per_epoch: int,
    axis_name: str | None = None,
    tell_signs: bool = False,
    **settings: Any,
) -> tuple[TrainState, Metrics]:
    """One step of self-supervised augmentation consistency (the paper's method, in its order).

    `model` keeps its running statistics (`frozen_norm`). batch: source_image (B, H, W, 3),
    source_label (B, H, W) int32; for the V views on this device student_view, teacher_view
    (V, H, W, 3), padded (V, H, W) bool, to_reference, from_reference (V, 2, 3); optionally
    target_label (V, H, W), for its loss in the metrics only, and source_keys (B,), target_keys
    (V,) that switch dropout on. tell_signs: for `signs.NAMES` in the metrics. settings: fields of
    `Settings`. Raises UserError for a batch that `accumulate` does not divide or without groups.
    """
    s = Settings(**settings)
    microbatches.check(s.accumulate, len(batch["source_image"]), len(batch["student_view"]))

    # 1. The teacher follows the student.
    teacher, prior_before = _update_teacher(state, steps_per_epoch, s)

    # 2. The teacher's prediction, and the class prior.
    probs = _teacher_predictions(model, teacher, batch["teacher_view"], s.accumulate)
    class_prior = consistency.update_class_prior(
        prior_before, probs, momentum=s.prior_momentum, beta=s.beta, axis_name=axis_name
    )

    # 3., 4. Aligned and pooled over the views, and brought back to each of them.
    refined = consistency.fuse_views(
        probs, batch["padded"], batch["to_reference"], batch["from_reference"],
        group_size=s.group_size, pool=s.pool, axis_name=axis_name,
    )  # fmt: skip

    # 5. Pseudo labels.
    padded = batch["padded"]
    labels, confidence = consistency.pseudo_labels(refined, padded, class_prior, **s.thresholds)

    # 6. One update for the source loss and the focal loss on pseudo labels.
    weight = consistency.pixel_weights(
        labels, confidence, class_prior,
        focal_power=s.focal_power, confidence_weighting=s.confidence_weighting,
        confidence_images=s.confidence_images or None, axis_name=axis_name,
    )  # fmt: skip
    batch = batch | {"pseudo_label": labels, "weight": weight}
    if tell_signs:
        batch["pooled_class"] = refined.argmax(-1)
    loss = partial(_adaptation_loss, state=state, model=model, settings=s)
    grads, metrics = microbatches.gradient_in_parts(loss, state.params, batch, s.accumulate)
    metrics["labelled"] = (labels != IGNORE).mean()
    if tell_signs:
        metrics |= signs.of_teacher(probs, refined, padded, class_prior, **s.thresholds)
    grads, metrics = (_mean_over_devices(each, axis_name) for each in (grads, metrics))
    metrics = signs.relative_to_seen(metrics)
    metrics["teacher_distance"] = _distance(teacher, state.student)
    return _updated(state, teacher, prior_before, class_prior, grads, metrics, optimiser)


def _teacher_predictions(model, teacher, views, parts):
    """(V, H, W, C): class probabilities of the teacher's views (V, H, W, 3), at their size."""

    def predict(views):
        return jax.nn.softmax(logits_at(model, model.apply(teacher, views), views.shape[1:3]))

    return microbatches.map_in_parts(predict, views, parts)


def _adaptation_loss(params, batch, *, state, model, settings):
    """Source loss + λ_t · target loss, and what the metrics say of it; for `gradient_in_parts`."""
    source_logits, logits = _student_logits(
        model, params, state.batch_stats, batch, settings.train_on_source
    )
    target_weight = settings.target_weight
    if settings.phase_in_steps:
        target_weight *= jnp.minimum(1.0, (state.step + 1) / settings.phase_in_steps)
    metrics = {
        "loss_target": weighted_cross_entropy(logits, batch["pseudo_label"], batch["weight"])
    }
    total = target_weight * metrics["loss_target"]
    if settings.train_on_source:
        metrics["loss_source"] = cross_entropy(source_logits, batch["source_label"])
        total = metrics["loss_source"] + total
    if "target_label" in batch:
        metrics["loss_target_supervised"] = cross_entropy(logits, batch["target_label"])
    if "pooled_class" in batch:
        metrics |= signs.of_student(logits, batch["pooled_class"], batch["padded"])
    return total, metrics


def _updated(state, teacher, prior_before, class_prior, grads, metrics, optimiser):
    """The state after an adaptation step, and its metrics; a step that is not finite is skipped."""
    params, opt_state = _update(state, grads, optimiser)
    losses = [metrics[name] for name in ("loss_source", "loss_target") if name in metrics]
    finite = trees.is_finite(losses, grads, class_prior)
    new = {"params": params, "class_prior": class_prior, "opt_state": opt_state}
    old = {**vars(state), "class_prior": prior_before}
    new = trees.select(finite, new, {name: old[name] for name in new})
    # The teacher followed weights of earlier steps, which all are finite: it moves in any case.
    state = state.replace(teacher=teacher, step=state.step + 1, **new)
    return state, metrics | {"skipped": _skipped(finite)}


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
        fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        batch = make_views(views_key, raw)
        batch |= {"source_keys": fold_in(source_key, raw["source_item"])}
        target_items = raw.get("target_view", raw.get("target_item"))
        if target_items is not None:
            batch |= {"target_keys": fold_in(target_key, target_items)}
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
    logits = logits_at(model, model.apply(variables, images), size or images.shape[1:3])
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


def _update_teacher(state, steps_per_epoch, settings):
    """ψ ← γψ + (1−γ)θ every so often in an epoch; at the very first step ψ ← θ and χ ← β."""
    momentum = settings.teacher_momentum

    def follow():
        first = state.step == 0

        def average(ours, theirs):
            return jnp.where(first, theirs, momentum * ours + (1 - momentum) * theirs)

        teacher = jax.tree.map(average, state.teacher, state.student)
        return teacher, jnp.where(first, jnp.float32(settings.beta), state.class_prior)

    due = (state.step % steps_per_epoch) % settings.teacher_every_steps == 0
    return lax.cond(due, follow, lambda: (state.teacher, state.class_prior))


def _student_logits(model, params, batch_stats, batch, with_source):
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
    logits = logits_at(model, logits, batch["student_view"].shape[1:3])
    count = len(batch["source_image"]) if with_source else 0
    return logits[:count], logits[count:]


def _distance(teacher, student):
    """Sum over all tensors of ‖ψ − θ‖₂."""
    difference = jax.tree.map(jnp.subtract, teacher, student)
    return jnp.sqrt(trees.square_norms(difference)).sum()


def _skipped(finite):
    """() float32, for the metrics: 1 for a step that was skipped, else 0."""
    return 1 - finite.astype(jnp.float32)


def _mean_over_devices(tree, axis_name):
    return tree if axis_name is None else lax.pmean(tree, axis_name)
