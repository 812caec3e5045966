"""How long a run will take here: a few steps of each stage, timed."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import numpy as np

from dasac_jax import config as recipe
from dasac_jax.runtime import data_parallel
from dasac_jax.training import from_config, stages
from dasac_jax.training.workdir import Run

STEPS = 3
"""How many steps of each stage are timed, behind one that is compiled."""

# A prediction is about a third of a step's work for as many pixels: forward without backward.
_PREDICTION = 1 / 3
_SCORED = 4  # networks: source only, baseline, adapted student and teacher


class Estimate(NamedTuple):
    """Seconds of a whole run, the steps of each stage, and seconds of each step."""

    seconds: float
    steps: dict[str, int]
    each: dict[str, float]


def estimate(run: Run, labelled: int) -> Estimate:
    """Train a few steps of both stages from random weights, and write nothing.

    labelled: how many target images are scored at the end. Raises UserError for files that cannot
    be read.
    """
    config, seconds, each, steps = run.config, 0.0, {}, {}
    before = 0
    for stage in (stage for stage in recipe.stages(config) if stage in from_config.STAGE_NUMBER):
        first, each[stage] = _time(run, stage)
        epochs, before = config[stage].epochs - before, config[stage].epochs
        steps[stage] = epochs * run.steps_per_epoch(stage)
        seconds += first + steps[stage] * each[stage]
    predicted = len(run.open("target_train")) + _SCORED * labelled
    stage = "baseline" if "baseline" in each else next(iter(each))
    images = config.baseline.source_batch + config.baseline.target_batch
    pixels = images * np.prod(config.baseline.crop)
    per_pixel = _PREDICTION * each[stage] / pixels
    seconds += predicted * np.prod(config.data.target_size) * per_pixel
    return Estimate(float(seconds), steps, each)


def _time(run: Run, stage: str) -> tuple[float, float]:
    """Seconds of a stage's first step, which is compiled, and the median of some more."""
    config, layout = run.config, stages.layout_of(run.config, stage)
    if stage == "baseline":
        step = from_config.baseline_step(config)
    else:
        step = from_config.adapt_step(config, run.steps_per_epoch(stage))
    state = data_parallel.replicate(from_config.create_state(config, stage))
    step = data_parallel.data_parallel(step)
    batches = stages.batches(run, layout, None, 0, STEPS + 1)
    taken = []
    try:
        for batch in batches:
            started = time.monotonic()
            state, metrics = step(
                state, data_parallel.to_devices(data_parallel.shard(batch, layout))
            )
            jax.block_until_ready(metrics)
            taken.append(time.monotonic() - started)
    finally:
        batches.close()
    return taken[0], float(np.median(taken[1:]))
