"""The one training loop: batches → step → log, validate, checkpoint."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState
from dasac_jax.reporting.recorder import Recorder
from dasac_jax.runtime import data_parallel, logs, processes, stop_requests
from dasac_jax.training.step_metrics import Window

_LOG = logging.getLogger(__name__)


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
    layout: data_parallel.Layout
    total_steps: int
    steps_per_epoch: int
    first_epoch: int
    facts: dict[str, Any]
    log_every_steps: int
    checkpoint_every_steps: int
    checkpoint_every_minutes: float  # 0: never for the time alone
    max_skipped_steps: int  # in a row
    validate_every_epochs: int
    validate: Validate | None
    watched: tuple[str, ...] = ()


def train(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    make_batches: Callable[[int, int], Iterator[dict[str, Any]]],
    plan: Plan,
    recorder: Recorder,
    facts: Mapping[str, Any],
) -> TrainState:
    """Train from state.step to plan.total_steps; checkpoints go to plan.newest and plan.best.

    make_batches(first_step, num_steps) gives this process's rows. facts: those of the checkpoint
    that the state comes from; empty at the beginning. Returns the last state, as numpy arrays.
    Raises UserError when too many steps in a row were skipped, and Stopped, everything saved,
    when a stop is requested.
    """
    first_step = int(state.step)
    state = data_parallel.replicate(state)
    step = data_parallel.data_parallel(step)
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(
            logs.progress(plan.name, plan.total_steps, first_step, log_every=plan.log_every_steps)
        )
        desk = stack.enter_context(_Desk(plan, recorder, update, facts))
        if facts.get("unseen"):
            desk.attend(state, first_step, saved=True)
        if first_step == plan.total_steps:
            return data_parallel.fetch(state)
        batches = make_batches(first_step, plan.total_steps - first_step)
        stack.callback(batches.close)
        started = time.monotonic()
        for done, batch in enumerate(desk.awaited(batches), start=first_step + 1):
            state, metrics = step(state, data_parallel.shard(batch, plan.layout))
            desk.window.add(done, metrics, batch["names"])
            if done == first_step + 1:
                jax.block_until_ready(metrics)
                _LOG.info("%s: first step after %.1f s", plan.name, time.monotonic() - started)
            desk.attend(state, done)
        return data_parallel.fetch(state)


class _Desk:
    """What is done between two steps: log, validate, record, save, and put down the work."""

    def __init__(self, plan: Plan, recorder: Recorder, update: Callable[..., None], facts) -> None:
        self._plan, self._recorder, self._update = plan, recorder, update
        self._best_score = float(facts.get("best_score", 0.0))
        self.window = Window(plan.name, plan.max_skipped_steps, facts)
        self._newest = store.open_manager(plan.newest, keep=2)
        self._best = store.open_manager(plan.best, keep=1)
        self._saved_at = self._looked_at = time.monotonic()
        self._waited = 0.0  # seconds since the last look in which the devices had nothing to do

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # There is no time to wait for what is being written, or a process that writes it is gone.
        if kind in (KeyboardInterrupt, jax.errors.JaxRuntimeError):
            return
        try:
            store.finish(self._newest)  # which may be about to write the best one first
        finally:
            store.finish(self._best)

    def awaited(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches, with an eye on how long the devices wait for them."""
        began = time.monotonic()
        for batch in batches:
            if self.window.is_computed():
                self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    def attend(self, state: TrainState, done: int, *, saved: bool = False) -> None:
        """Look at a step that has been done; saved: whether its state is on disk already.

        Raises Stopped instead where a stop is requested, before the look or in its validation:
        the look is then the first thing that the next start does, so that the result is the same.
        """
        stop = stop_requests.requested()  # by a signal to any process: the first one hears of it
        # All write a checkpoint, so all have to know; the first one's clock counts.
        stop, overdue = processes.from_first(lambda: [stop, self._overdue()])
        try:
            if stop is None:
                self._look(state, done, overdue=overdue, saved=saved)
            else:
                if not saved:
                    self._save(state, unseen=True)
                raise stop_requests.Stopped(stop)
        except stop_requests.Stopped as reason:
            raise stop_requests.Stopped(
                f"{reason} (after {self._plan.name} step {done})"
            ) from reason

    def _look(self, state: TrainState, done: int, *, overdue: bool, saved: bool) -> None:
        plan = self._plan
        last = done == plan.total_steps
        epoch, rest = divmod(done, plan.steps_per_epoch)
        looked = last or done % plan.log_every_steps == 0
        interval = last or (rest == 0 and epoch % plan.validate_every_epochs == 0)
        means, values, pictures = None, {}, {}
        if looked:
            means = self._means(done)
            values = means | {key: data_parallel.first(getattr(state, key)) for key in plan.watched}
        self._update(done, means and means | {"data_wait": self._share_waited()})
        if plan.validate and interval:
            if not saved:  # whatever happens in the meantime, the next start begins here
                self._save(state, unseen=True)
            found = self._validate(state, done)
            values = values | {"selection_miou": found.miou, **found.values}
            pictures = found.pictures
        if values:
            self._recorder.add(done, values, pictures)
        if looked:
            self.window.clear()
        if interval or overdue or done % plan.checkpoint_every_steps == 0:
            self._save(state)

    def _means(self, done: int) -> dict[str, float]:
        means, skipped = self.window.means()
        if not skipped:
            return means
        _LOG.warning(
            "%s: %d of the steps up to %d were skipped, a loss or gradient was not finite",
            self._plan.name, skipped, done,
        )  # fmt: skip
        return means | {"skipped": skipped}

    def _share_waited(self) -> float:
        """The share of the time since the last look in which the devices waited for data."""
        began, self._looked_at = self._looked_at, time.monotonic()
        waited, self._waited = self._waited, 0.0
        return waited / (self._looked_at - began)

    def _validate(self, state: TrainState, done: int) -> Validation:
        """Score the student; keep it where it is the best so far."""
        began = time.monotonic()
        found = self._plan.validate(data_parallel.fetch(state))
        self._looked_at += time.monotonic() - began  # that was no training
        _LOG.info(
            "%s step %d: mIoU %.1f %% on the selection split",
            self._plan.name, done, 100 * found.miou,
        )  # fmt: skip
        if found.miou > self._best_score:
            self._best_score = found.miou
            store.save(self._best, self._sound(state), metadata=self._facts(state))
        return found

    def _overdue(self) -> bool:
        minutes = self._plan.checkpoint_every_minutes
        return bool(minutes) and time.monotonic() - self._saved_at >= 60 * minutes

    def _save(self, state: TrainState, *, unseen: bool = False) -> None:
        # Behind its numbers: the next start would not write them again.
        if not processes.from_first(self._recorder.flush):
            return
        facts = self._facts(state) | self.window.facts() | {"unseen": unseen}
        # Behind the best state: the newest one says its score, so nobody would save it again.
        store.save(self._newest, self._sound(state), metadata=facts, after=self._best)
        self._saved_at = time.monotonic()

    def _sound(self, state: TrainState) -> TrainState:
        """The state as numpy arrays. Raises UserError where its weights are not finite."""
        state = data_parallel.fetch(state)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.student)):
            raise UserError(
                f"{self._plan.name} step {int(state.step)}: weights are not finite; checkpoints "
                "before it are kept, try a smaller learning rate"
            )
        return state

    def _facts(self, state: TrainState) -> dict[str, Any]:
        plan = self._plan
        return {
            **plan.facts,
            "stage": plan.name,
            "epoch": plan.first_epoch
            + int(data_parallel.first(state.step)) // plan.steps_per_epoch,
            "first_epoch": plan.first_epoch,
            "best_score": self._best_score,
        }
