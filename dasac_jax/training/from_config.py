"""Networks, optimisers, steps and view makers as a configuration describes them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dasac_jax import models
from dasac_jax.data import classes
from dasac_jax.image import views
from dasac_jax.image.normalise import source_statistics
from dasac_jax.method import optim, steps
from dasac_jax.method import state as states
from dasac_jax.method.settings import Settings
from dasac_jax.runtime import data_parallel

STAGE_NUMBER = {"baseline": 0, "adapt": 1}  # folded into the seed
_HUE = 0.1  # of the jitter, in turns


def create_model(config: ConfigDict, stage: str | None = None) -> nn.Module:
    """The network as a stage trains it; without a stage, for prediction."""
    options = {
        None: {},
        "baseline": {"axis_name": data_parallel.AXIS, "remat": config.remat},
        "adapt": {"frozen_norm": models.has_batch_norm(config.arch), "remat": config.remat},
    }
    dtype = jnp.dtype(config.dtype)
    num_classes = len(classes.of(config.data))
    return models.create_model(config.arch, num_classes, dtype, **options[stage])


def create_state(
    config: ConfigDict, stage: str, given: dict[str, jax.Array] | None = None
) -> states.TrainState:
    """A state at step 0 with fresh weights, but those that are given (see `state.drawn`)."""
    model = create_model(config)
    return states.create(
        model,
        _optimiser(config, stage),
        seed=config.seed,
        beta=config.adapt.beta,
        variables=states.drawn(model, config.seed, given),
    )


def baseline_step(config: ConfigDict, total_steps: int = 0) -> Callable[..., Any]:
    """The baseline's whole step on one device: decoded images in, updated state out.

    total_steps: of the stage, for a learning rate that falls to 0.
    """
    step = partial(
        steps.baseline_step,
        model=create_model(config, "baseline"),
        optimiser=_optimiser(config, "baseline", total_steps),
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


def adapt_step(
    config: ConfigDict, steps_per_epoch: int, total_steps: int = 0
) -> Callable[..., Any]:
    """The adaptation's whole step on one device: decoded images in, updated state out.

    total_steps: of the stage, for a learning rate that falls to 0.
    """
    adapt = config.adapt
    mean, std = source_statistics(config.data.statistics)
    step = partial(
        steps.adapt_step,
        model=create_model(config, "adapt"),
        optimiser=_optimiser(config, "adapt", total_steps),
        steps_per_epoch=steps_per_epoch,
        axis_name=data_parallel.AXIS,
        tell_signs=True,
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


def _optimiser(config: ConfigDict, stage: str, total_steps: int = 0):
    rate = config[stage].learning_rate
    return optim.create(rate, total_steps=total_steps, **config.optimiser)
