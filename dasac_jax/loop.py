"""The one training loop: batches → step → log, validate, checkpoint."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dasac_jax import checkpoint, logs, parallel
from dasac_jax.errors import UserError
from dasac_jax.history import Recorder
from dasac_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_MEND = "checkpoints before it are kept, try a smaller learning rate"


@dataclass(frozen=True)
class Validation:
    """What a look at the selection split gives.

    miou: in 0..1. pictures: (H, W, 3) uint8 by name. values: what else to record, numbers or
    arrays (C,), by name.
    """

    miou: float
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


Validate = Callable[[TrainState], Validation]


@dataclass(frozen=True)
class Plan:
    """What a stage's loop needs to know besides its step and its batches.

    first_epoch counts the epochs of earlier stages. watched names arrays (C,) of the state that
    are recorded with the losses. validate: None for no validation.
    """

    name: str
    newest: Path  # folder of the newest checkpoints
    best: Path  # folder of the one with the best mIoU on the selection split
    layout: parallel.Layout
    total_steps: int
    steps_per_epoch: int
    first_epoch: int
    facts: dict[str, Any]
    log_every_steps: int
    checkpoint_every_steps: int
    validate_every_epochs: int
    validate: Validate | None
    watched: tuple[str, ...] = ()


def train(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    make_batches: Callable[[int, int], Iterator[dict[str, Any]]],
    plan: Plan,
    recorder: Recorder,
    best_score: float,
) -> TrainState:
    """Train from state.step to plan.total_steps; checkpoints go to plan.newest and plan.best.

    make_batches(first_step, num_steps) gives this process's rows. Returns the last state, as
    numpy arrays. Raises UserError when a loss is not finite.
    """
    first_step = int(state.step)
    state = parallel.replicate(state)
    step = parallel.data_parallel(step)
    newest = checkpoint.open_manager(plan.newest, keep=2)
    best = checkpoint.open_manager(plan.best, keep=1)
    batches = make_batches(first_step, plan.total_steps - first_step)
    window: list[dict[str, jax.Array]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoint.finish, newest)
        stack.callback(checkpoint.finish, best)
        stack.callback(batches.close)
        update = stack.enter_context(
            logs.progress(plan.name, plan.total_steps, first_step, log_every=plan.log_every_steps)
        )
        started = time.monotonic()
        for done, batch in enumerate(batches, start=first_step + 1):
            state, metrics = step(state, parallel.shard(batch, plan.layout))
            window.append(metrics)
            if done == first_step + 1:
                jax.block_until_ready(metrics)
                _LOG.info("%s: first step after %.1f s", plan.name, time.monotonic() - started)
            last = done == plan.total_steps
            means, values, pictures = None, {}, {}
            if last or done % plan.log_every_steps == 0:
                means = _means(plan.name, window, done)
                window.clear()
                values = means | {key: parallel.first(getattr(state, key)) for key in plan.watched}
            update(done, means)
            epoch, rest = divmod(done, plan.steps_per_epoch)
            if plan.validate and (last or (rest == 0 and epoch % plan.validate_every_epochs == 0)):
                found = _validate(state, plan, best, best_score)
                best_score = max(best_score, found.miou)
                values = values | {"selection_miou": found.miou, **found.values}
                pictures = found.pictures
            if values:
                recorder.add(done, values, pictures)
            if last or done % plan.checkpoint_every_steps == 0:
                _save(newest, state, plan, best_score)
        return parallel.fetch(state)


def _means(name: str, window: list[dict[str, jax.Array]], done: int) -> dict[str, float]:
    """Means of the metrics since the last look; the only place that waits for the device."""
    fetched = [{key: float(parallel.first(x)) for key, x in m.items()} for m in window]
    means = {key: float(np.mean([m[key] for m in fetched])) for key in fetched[0]}
    for i, metrics in enumerate(fetched):
        bad = [key for key, value in metrics.items() if not math.isfinite(value)]
        if bad:
            number = done - len(fetched) + i + 1
            raise UserError(f"{name} step {number}: {bad[0]} is {metrics[bad[0]]}; {_MEND}")
    return means


def _validate(state, plan, best, best_score) -> Validation:
    """Score the student; keep it where it is the best so far."""
    found = plan.validate(parallel.fetch(state))
    done = int(parallel.first(state.step))
    _LOG.info("%s step %d: mIoU %.1f %% on the selection split", plan.name, done, 100 * found.miou)
    if found.miou > best_score:
        _save(best, state, plan, found.miou)
    return found


def _save(manager, state, plan, best_score) -> None:
    state = parallel.fetch(state)
    # The losses are looked at more rarely, and tell of the weights only a step later.
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.student)):
        raise UserError(f"{plan.name} step {int(state.step)}: weights are not finite; {_MEND}")
    epoch = plan.first_epoch + int(state.step) // plan.steps_per_epoch
    facts = {
        **plan.facts,
        "stage": plan.name,
        "epoch": epoch,
        "first_epoch": plan.first_epoch,
        "best_score": best_score,
    }
    checkpoint.save(manager, state, metadata=facts)
