"""The recipe's stages: baseline → weights → adapt.

Each stage resumes from its newest checkpoint, is skipped when it is complete, and starts from
what the stage before it handed on, or from `config.init`.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax import models
from dasac_jax.data import classes, loader, sampling
from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.image import views
from dasac_jax.image.normalise import source_statistics
from dasac_jax.method import microbatches, optim, steps
from dasac_jax.method import state as states
from dasac_jax.method.settings import Settings
from dasac_jax.reporting.recorder import Recorder
from dasac_jax.runtime import data_parallel, logs, processes
from dasac_jax.training import initial_state, loop, validation
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)

STAGE_NUMBER = {"baseline": 0, "adapt": 1}  # folded into the seed
_HUE = 0.1  # of the jitter, in turns


def create_model(config: ConfigDict, stage: str | None = None) -> nn.Module:
    """The network as a stage trains it; without a stage, for prediction."""
    options = {
        None: {},
        "baseline": {"axis_name": data_parallel.AXIS, "remat": config.remat},
        "adapt": {"frozen_norm": True, "remat": config.remat},
    }
    dtype = jnp.dtype(config.dtype)
    num_classes = len(classes.of(config.data))
    return models.create_model(config.arch, num_classes, dtype, **options[stage])


def create_state(config: ConfigDict, stage: str) -> states.TrainState:
    """A state at step 0 with fresh weights."""
    return states.create(
        create_model(config),
        _optimiser(config, stage),
        seed=config.seed,
        beta=config.adapt.beta,
    )


def check_devices(config: ConfigDict) -> None:
    """Raise UserError where a stage's network is unknown or its batch does not fit the devices."""
    create_model(config)
    for stage in _trained(config):
        layout = _layout(config, stage)
        if stage == "adapt":
            rows = layout.source_batch // layout.devices
            microbatches.check(config.adapt.accumulate, rows, layout.views)


def check_data(run: Run) -> None:
    """Raise UserError where a stage's source batch is larger than the source."""
    for stage in _trained(run.config):
        _steps_per_epoch(run, stage)


def run_baseline(run: Run) -> None:
    """Supervised training on the source, batch statistics of both domains (ABN)."""
    fresh = partial(create_state, run.config, "baseline")
    shapes = partial(jax.eval_shape, fresh)
    state, facts = processes.state_from_first(
        partial(initial_state.of_baseline, run, fresh), shapes
    )
    _train(run, "baseline", state, facts, baseline_step(run.config), weights=None)


def run_weights(run: Run) -> None:
    """Importance weights: the baseline's predicted pixels per class in each target image."""
    if _weights(run) is not None:
        return
    pairs = run.open("target_train")
    names = [image for image, _ in pairs.pairs]
    class_names = [entry.name for entry in run.classes]
    fresh = partial(create_state, run.config, "baseline")
    shapes = partial(jax.eval_shape, fresh)
    state, _ = processes.state_from_first(
        partial(initial_state.handed_on, run, "baseline", fresh), shapes
    )
    rows = scoring.class_counts(
        scoring.predictor(create_model(run.config)), state.student, pairs, len(class_names),
        batch=run.config.validation_batch,
    )  # fmt: skip
    counts = []
    part = processes.part_of(len(pairs))
    with logs.progress("weights", len(part), log_every=run.config.log_every_steps) as update:
        for done, row in enumerate(rows, start=1):
            counts.append(row)
            update(done)
    found = np.array(counts, np.int64).reshape(len(part), len(class_names))
    found = processes.gather(found, len(pairs))
    if processes.is_first():
        sampling.save_weights(run.weights_file, names, found, class_names)


def run_adapt(run: Run) -> None:
    """Adaptation with a momentum teacher and augmentation consistency (SAC)."""
    fresh = partial(create_state, run.config, "adapt")
    shapes = partial(jax.eval_shape, fresh)
    state, facts = processes.state_from_first(partial(initial_state.of_adapt, run, fresh), shapes)
    weights = _weights(run)
    if weights is None:
        _LOG.warning("there is no %s: target images are drawn uniformly", run.weights_file)
    step = adapt_step(run.config, _steps_per_epoch(run, "adapt"))
    _train(run, "adapt", state, facts, step, weights)


def _weights(run: Run) -> np.ndarray | None:
    """The importance weights (N, C) of the target images, None where there is no file of them."""
    if not processes.from_first(run.weights_file.exists):
        return None
    names = [image for image, _ in run.open("target_train").pairs]
    class_names = [entry.name for entry in run.classes]

    def load() -> tuple[np.ndarray, dict[str, Any]]:
        return sampling.load_weights(run.weights_file, names, class_names), {}

    return processes.state_from_first(load, lambda: np.zeros((len(names), len(class_names))))[0]


RUNNERS: dict[str, Callable[[Run], None]] = {
    "baseline": run_baseline,
    "weights": run_weights,
    "adapt": run_adapt,
}


def baseline_step(config: ConfigDict) -> Callable[..., Any]:
    """The baseline's whole step on one device: decoded images in, updated state out."""
    step = partial(
        steps.baseline_step,
        model=create_model(config, "baseline"),
        optimiser=_optimiser(config, "baseline"),
        axis_name=data_parallel.AXIS,
    )
    return steps.on_views(step, baseline_views(config), STAGE_NUMBER["baseline"])


def baseline_views(config: ConfigDict) -> Callable[..., dict[str, jax.Array]]:
    """The baseline's view maker: (key, decoded images) → batch."""
    mean, std = source_statistics(config.data.statistics)
    return partial(
        views.baseline_views,
        size=tuple(config.baseline.crop),
        scale=tuple(config.baseline.scale),
        jitter=config.baseline.jitter,
        source_mean=mean,
        source_std=std,
    )


def adapt_step(config: ConfigDict, steps_per_epoch: int) -> Callable[..., Any]:
    """The adaptation's whole step on one device: decoded images in, updated state out."""
    adapt = config.adapt
    mean, std = source_statistics(config.data.statistics)
    step = partial(
        steps.adapt_step,
        model=create_model(config, "adapt"),
        optimiser=_optimiser(config, "adapt"),
        steps_per_epoch=steps_per_epoch,
        axis_name=data_parallel.AXIS,
        **{field.name: adapt[field.name] for field in dataclasses.fields(Settings)},
    )
    make_views = partial(
        views.adapt_views,
        source_scale=tuple(adapt.source_scale),
        source_mean=mean,
        source_std=std,
        **target_view_settings(config),
    )
    return steps.on_views(step, make_views, STAGE_NUMBER["adapt"])


def target_view_settings(config: ConfigDict) -> dict[str, Any]:
    """How the adaptation makes a target image's views."""
    adapt = config.adapt
    return {
        "size": tuple(adapt.crop),
        "num_views": adapt.group_size,
        "target_scale": tuple(adapt.target_scale),
        "zoom": tuple(adapt.zoom),
        "jitter": adapt.jitter,
        "hue": _HUE,
    }


def batches(
    run: Run,
    layout: data_parallel.Layout,
    weights: np.ndarray | None,
    first_step: int,
    num_steps: int,
) -> Iterator[dict[str, Any]]:
    """This process's rows of the steps' batches, decoded; order follows from seed and step."""
    source = run.open("source_train")
    return loader.batches(
        source,
        run.open("target_train"),
        seed=run.config.seed,
        first_step=first_step,
        num_steps=num_steps,
        source_batch=layout.source_batch,
        target_batch=layout.target_batch,
        steps_per_epoch=len(source) // layout.source_batch,
        source_rows=layout.source_rows,
        target_rows=layout.target_rows,
        weights=weights,
        num_classes=len(run.classes),
        uniform_classes=tuple(run.config.left_out),
        num_threads=run.config.loader_threads,
    )


def _trained(config: ConfigDict) -> list[str]:
    """Those of the stages to run that train."""
    return [stage for stage in recipe.stages(config) if stage in STAGE_NUMBER]


def _layout(config: ConfigDict, stage: str) -> data_parallel.Layout:
    section = config[stage]
    if stage == "baseline":
        return data_parallel.layout(stage, section.source_batch, section.target_batch)
    return data_parallel.layout(stage, section.source_batch, section.groups, section.group_size)


def _steps_per_epoch(run: Run, stage: str) -> int:
    images, batch = len(run.open("source_train")), run.config[stage].source_batch
    if batch > images:
        raise UserError(
            f"config.{stage}.source_batch is {batch}, but there are only "
            f"{images} source images: use a smaller batch"
        )
    return images // batch


def _train(run, stage, state, facts, step, weights) -> None:
    config = run.config
    layout, steps_per_epoch = _layout(config, stage), _steps_per_epoch(run, stage)
    first_epoch = int(facts.get("first_epoch", 0))
    if first_epoch >= config[stage].epochs:
        raise UserError(
            f"config.{stage}.epochs is {config[stage].epochs}, but the stages before took "
            f"{first_epoch}, which count too: give more"
        )
    plan = loop.Plan(
        name=stage,
        newest=run.newest(stage),
        best=run.best(stage),
        layout=layout,
        total_steps=(config[stage].epochs - first_epoch) * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        first_epoch=first_epoch,
        facts=run.facts(),
        log_every_steps=config.log_every_steps,
        checkpoint_every_steps=config.checkpoint_every_steps,
        checkpoint_every_minutes=config.checkpoint_every_minutes,
        max_skipped_steps=config.max_skipped_steps,
        validate_every_epochs=config.validate_every_epochs,
        validate=_validation(run, stage) if config.data.selection_images else None,
        watched=("class_prior",) if stage == "adapt" else (),
    )
    unseen = bool(facts.get("unseen"))  # the last step is done, but nobody has looked at it
    if int(state.step) >= plan.total_steps and not unseen:
        _LOG.info("%s: complete at step %d", stage, int(state.step))
        return
    primary = processes.is_first()
    seen = int(state.step) - unseen
    with Recorder(run.folder, stage, seen, run.classes, enabled=primary) as recorder:
        make_batches = partial(batches, run, layout, weights)
        loop.train(state, step, make_batches, plan, recorder, facts)


def _validation(run: Run, stage: str) -> loop.Validate:
    model = create_model(run.config)
    if stage == "baseline":
        return validation.of_baseline(run, model)
    return validation.of_adapt(
        run, model, partial(views.target_views, **target_view_settings(run.config))
    )


def _optimiser(config: ConfigDict, stage: str):
    return optim.create(config[stage].learning_rate, **config.optimiser)
