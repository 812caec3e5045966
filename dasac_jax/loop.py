"""The one training loop: batches → step → log, validate, checkpoint."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dasac_jax import checkpoint, logs, parallel
from dasac_jax.errors import UserError
from dasac_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_MEND = "checkpoints before it are kept, try a smaller learning rate"

Validate = Callable[[TrainState], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """What a stage's loop needs to know besides its step and its batches.

    first_epoch counts the epochs of earlier stages. validate gives a mIoU in 0..1 and a picture
    (H, W, 3) uint8; None: no validation.
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


def train(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    make_batches: Callable[[int, int], Iterator[dict[str, Any]]],
    plan: Plan,
    scalars: logs.Scalars,
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
            means = None
            if last or done % plan.log_every_steps == 0:
                means = _means(plan.name, window, done)
                window.clear()
                scalars.add_scalars(done, {f"{plan.name}/{k}": v for k, v in means.items()})
            update(done, means)
            epoch, rest = divmod(done, plan.steps_per_epoch)
            if plan.validate and (last or (rest == 0 and epoch % plan.validate_every_epochs == 0)):
                best_score = _validate(state, plan, best, best_score, scalars)
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


def _validate(state, plan, best, best_score, scalars) -> float:
    """Score the student; keep it where it is the best so far. Returns the best score."""
    miou, picture = plan.validate(parallel.fetch(state))
    done = int(parallel.first(state.step))
    scalars.add_scalars(done, {f"{plan.name}/selection_miou": miou})
    scalars.add_image(f"{plan.name}/selection", picture, done)
    _LOG.info("%s step %d: mIoU %.1f %% on the selection split", plan.name, done, 100 * miou)
    if miou > best_score:
        _save(best, state, plan, miou)
        return miou
    return best_score


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
