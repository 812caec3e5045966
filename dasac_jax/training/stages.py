"""The recipe's stages: baseline → weights → adapt.

Each stage resumes from its newest checkpoint, is skipped when it is complete, and starts from
what the stage before it handed on, or from `config.init`.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.data import loader, sampling
from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.image import views
from dasac_jax.method import microbatches, view_groups
from dasac_jax.reporting.recorder import Recorder
from dasac_jax.runtime import data_parallel, logs, processes
from dasac_jax.training import (
    from_config,
    initial_state,
    label_check,
    loop,
    target_shares,
    validation,
)
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)


def check_devices(config: ConfigDict) -> None:
    """Raise UserError where a stage's network is unknown or its batch does not fit the devices."""
    from_config.create_model(config)
    for stage in _trained(config):
        layout = layout_of(config, stage)
        if stage == "adapt":
            rows = layout.source_batch // layout.devices
            microbatches.check(config.adapt.accumulate, rows, layout.views)
            _check_confidence_images(config, layout)


def check_data(run: Run) -> None:
    """Raise UserError where a stage's source batch is larger than the source, or labels are wrong.

    Also where a stage that has not begun would have too few steps, and where `config.init` does not
    fit. What the labels hold is logged; see `label_check.check`.
    """
    trained = _trained(run.config)
    for stage in trained:
        run.steps_per_epoch(stage)
        if store.latest_step(run.newest(stage)) is None:  # else they were counted at its start
            _total_steps(run, stage, _epochs_before(run, stage, trained))
    if run.config.select == "best" and not run.config.data.selection_images:
        _LOG.warning(
            "config.select is best, but config.data.selection_images is 0: with nothing to select "
            "on, the last snapshot of a stage is handed on"
        )
    fresh = partial(from_config.create_state, run.config, "baseline")
    processes.from_first(lambda: initial_state.check_given(run, fresh))
    run.unseen_classes[:] = label_check.check(run)


def run_baseline(run: Run) -> None:
    """Supervised training on the source, batch statistics of both domains (ABN).

    A network without batch norm has none: no target image is read then.
    """
    if not models.has_batch_norm(run.config.arch):
        _LOG.info("baseline: %s has no batch norm to adapt: source alone", run.config.arch)
    state, progress = _initial_state(run, "baseline", initial_state.of_baseline)
    make_step = partial(from_config.baseline_step, run.config)
    _train(run, "baseline", state, progress, make_step, weights=None)


def run_weights(run: Run) -> None:
    """Importance weights: the baseline's predicted pixels per class in each target image."""
    if _weights(run) is not None:
        return
    pairs = run.open("target_train")
    class_names = [entry.name for entry in run.classes]
    handed_on = partial(initial_state.handed_on, stage="baseline")
    student = initial_state.shared_state(run, "baseline", handed_on)[0].student
    counted = scoring.class_counts(
        scoring.predictor(from_config.create_model(run.config)), student, pairs,
        len(class_names), batch=run.config.validation_batch,
    )  # fmt: skip
    counts: list[np.ndarray] = []
    part = processes.part_of(len(pairs))
    with logs.progress("weights", len(part), log_every=run.config.log_every_steps) as update:
        for of_batch in counted:
            counts.extend(of_batch)
            update(len(counts))
    found = np.array(counts, np.int64).reshape(len(part), len(class_names))
    found = processes.gather(found, len(pairs))
    if processes.is_first():
        sampling.save_weights(run.weights_file, pairs.names, found, class_names)


def run_adapt(run: Run) -> None:
    """Adaptation with a momentum teacher and augmentation consistency (SAC)."""
    state, progress = _initial_state(run, "adapt", initial_state.of_adapt)
    weights = _weights(run)
    if weights is None:
        _LOG.warning("there is no %s: target images are drawn uniformly", run.weights_file)
    make_step = partial(from_config.adapt_step, run.config, run.steps_per_epoch("adapt"))
    _train(run, "adapt", state, progress, make_step, weights)


def _weights(run: Run) -> np.ndarray | None:
    """The importance weights (N, C) of the target images, None where there is no file of them."""
    if not processes.from_first(run.weights_file.exists):
        return None
    shape = len(run.open("target_train")), len(run.classes)
    return processes.state_from_first(
        lambda: (run.importance_weights(), {}), lambda: np.zeros(shape)
    )[0]


RUNNERS: dict[str, Callable[[Run], None]] = {
    "baseline": run_baseline,
    "weights": run_weights,
    "adapt": run_adapt,
}


def batches(
    run: Run,
    layout: data_parallel.Layout,
    weights: np.ndarray | None,
    first_step: int,
    num_steps: int,
) -> Iterator[dict[str, Any]]:
    """This process's rows of the steps' batches, decoded; order follows from seed and step."""
    source, target = run.open("source_train"), run.open("target_train")
    sampler = sampling.target_sampler(
        len(target), weights, len(run.classes), tuple(run.config.left_out)
    )
    return loader.batches(
        source, target, layout, sampler,
        seed=run.config.seed, first_step=first_step, num_steps=num_steps,
        num_threads=run.config.loader_threads,
    )  # fmt: skip


def _trained(config: ConfigDict) -> list[str]:
    """Those of the stages to run that train."""
    return [stage for stage in recipe.stages(config) if stage in from_config.STAGE_NUMBER]


def layout_of(config: ConfigDict, stage: str) -> data_parallel.Layout:
    """How a stage's batch is divided among the devices; UserError where they cannot share it."""
    section = config[stage]
    if stage == "baseline":
        targets = section.target_batch if models.has_batch_norm(config.arch) else 0
        return data_parallel.layout(stage, section.source_batch, targets)
    return data_parallel.layout(stage, section.source_batch, section.groups, section.group_size)


def _initial_state(run, stage, begin):
    """The state on all devices, of which the first step leaves nothing behind, and its metadata."""
    state, progress = initial_state.shared_state(run, stage, begin)
    return data_parallel.replicate(state), progress


def _train(run, stage, state, progress, make_step, weights) -> None:
    config, steps_per_epoch = run.config, run.steps_per_epoch(stage)
    first_epoch = int(progress.get("first_epoch", 0))
    total_steps = _total_steps(run, stage, first_epoch)
    names = [field.name for field in dataclasses.fields(loop.Intervals)]
    plan = loop.Plan(
        name=stage,
        newest=run.newest(stage),
        best=run.best(stage),
        layout=layout_of(config, stage),
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        first_epoch=first_epoch,
        network=run.network(),
        intervals=loop.Intervals(**{name: config[name] for name in names}),
        validate=_validation(run, stage) if config.data.selection_images else None,
        watched=("class_prior",) if stage == "adapt" else (),
        watch=_watch(run, stage, config.validate_every_epochs * steps_per_epoch),
    )
    # A run that was stopped right behind its last step has yet to log and validate it.
    pending = bool(progress.get("pending"))
    if int(state.step) >= plan.total_steps and not pending:
        _LOG.info("%s: complete at step %d", stage, int(state.step))
        return
    recorded = int(state.step) - pending  # a pending step is saved, but not logged yet
    with Recorder(
        run.folder, stage, recorded, run.classes, enabled=processes.is_first()
    ) as recorder:

        def make_batches(first_step: int, num_steps: int) -> Iterator[dict[str, Any]]:
            read = batches(run, plan.layout, weights, first_step, num_steps)
            return label_check.watched(read, run, stage, first_step, run.unseen_classes)

        step = make_step(total_steps)
        loop.train(state, step, make_batches, plan, recorder, progress)


def _total_steps(run: Run, stage: str, first_epoch: int) -> int:
    """How many steps a stage has behind the epochs of earlier ones; UserError where too few."""
    config = run.config
    if first_epoch >= config[stage].epochs:
        raise UserError(
            f"config.{stage}.epochs is {config[stage].epochs}, but the stages before took "
            f"{first_epoch}, which count too: give more"
        )
    total_steps = (config[stage].epochs - first_epoch) * run.steps_per_epoch(stage)
    if config.optimiser.warmup_steps >= total_steps:
        raise UserError(
            f"config.optimiser.warmup_steps is {config.optimiser.warmup_steps}, but stage {stage} "
            f"has {total_steps} steps: give a smaller one"
        )
    return total_steps


def _epochs_before(run: Run, stage: str, trained: Sequence[str]) -> int:
    if stage == "baseline":
        return 0
    count = partial(initial_state.epochs_before_adapt, run, trains_baseline="baseline" in trained)
    return processes.from_first(count)


def _check_confidence_images(config: ConfigDict, layout: data_parallel.Layout) -> None:
    images = config.adapt.confidence_images
    if config.adapt.confidence_weighting == "batch" and images:
        view_groups.check(layout.views, layout.devices, images, "config.adapt.confidence_images")


def _validation(run: Run, stage: str) -> validation.Validate:
    model = from_config.create_model(run.config)
    if stage == "baseline":
        return validation.of_baseline(run, model)
    settings = from_config.target_view_settings(run.config)
    return validation.of_adapt(run, model, partial(views.target_views, **settings))


def _watch(run: Run, stage: str, interval: int) -> Callable[[int], None] | None:
    """What looks at the numbers that the adaptation records, on the process that records them."""
    if stage != "adapt" or not processes.is_first():
        return None
    return target_shares.watcher(run, interval)
