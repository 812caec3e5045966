"""The one training loop: batches → step → log, validate, checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.method import signs
from dasac_jax.method.state import TrainState
from dasac_jax.reporting.recorder import Recorder
from dasac_jax.runtime import data_parallel, logs, processes, stop_requests
from dasac_jax.training.stage_checkpoints import StageCheckpoints
from dasac_jax.training.step_metrics import StepMetrics
from dasac_jax.training.validation import Validate, Validation

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How often a stage logs, saves and validates: keys of the configuration of the same names."""

    log_every_steps: int
    checkpoint_every_steps: int
    checkpoint_every_minutes: float  # 0: never for the time alone
    validate_every_epochs: int
    max_skipped_steps: int  # in a row


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a stage's loop needs to know besides its step and its batches.

    network: what its checkpoints say of the network that they hold. first_epoch counts the epochs
    of earlier stages. watched names arrays (C,) of the state that are recorded with the losses.
    validate: None for no validation. watch: called with the steps done where a validation would be,
    its numbers being recorded.
    """

    name: str
    newest: Path  # folder of the newest checkpoints
    best: Path  # folder of the one with the best mIoU on the selection split
    layout: data_parallel.Layout
    total_steps: int
    steps_per_epoch: int
    first_epoch: int
    network: dict[str, Any]
    intervals: Intervals
    validate: Validate | None
    watched: tuple[str, ...] = ()
    watch: Callable[[int], None] | None = None


def train(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    make_batches: Callable[[int, int], Iterator[dict[str, Any]]],
    plan: Plan,
    recorder: Recorder,
    progress: Mapping[str, Any],
) -> TrainState:
    """Train from state.step to plan.total_steps; checkpoints go to plan.newest and plan.best.

    make_batches(first_step, num_steps) gives this process's rows. progress: the metadata of the
    checkpoint that the state comes from; empty at the beginning. Returns the last state, as numpy
    arrays. Raises UserError when too many steps in a row were skipped, and Stopped, everything
    saved, when a stop is requested.
    """
    first_step = int(state.step)
    state = data_parallel.replicate(state)
    step = data_parallel.data_parallel(step)
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(
            logs.progress(
                plan.name, plan.total_steps, first_step, log_every=plan.intervals.log_every_steps
            )
        )
        best_score = float(progress.get("best_score", 0.0))
        checkpoints = stack.enter_context(StageCheckpoints(plan.newest, plan.best, best_score))
        bookkeeper = _Bookkeeper(plan, checkpoints, recorder, show, progress)
        if progress.get("pending"):
            bookkeeper.after_step(state, first_step, saved=True)
        if first_step == plan.total_steps:
            return data_parallel.fetch(state)
        batches = make_batches(first_step, plan.total_steps - first_step)
        stack.callback(batches.close)
        started = time.monotonic()
        for done, batch in enumerate(bookkeeper.timed(batches), start=first_step + 1):
            names = batch["names"]
            batch = data_parallel.to_devices(data_parallel.shard(batch, plan.layout))
            if done == first_step + 1:
                data_parallel.compile_ahead(step, state, batch)
            state, metrics = step(state, batch)
            bookkeeper.metrics.add(done, metrics, names)
            if done == first_step + 1:
                jax.block_until_ready(metrics)
                _LOG.info("%s: first step after %.1f s", plan.name, time.monotonic() - started)
            bookkeeper.after_step(state, done)
        return data_parallel.fetch(state)


class _Bookkeeper:
    """Logs, validates and saves between two steps, and stops where that is requested."""

    def __init__(
        self,
        plan: Plan,
        checkpoints: StageCheckpoints,
        recorder: Recorder,
        show: Callable[..., None],
        progress: Mapping[str, Any],
    ) -> None:
        self._plan, self._checkpoints = plan, checkpoints
        self._recorder, self._show = recorder, show
        self.metrics = StepMetrics(plan.name, plan.intervals.max_skipped_steps, progress)
        self._logged_at = time.monotonic()
        self._waited = 0.0  # seconds since then in which the devices had nothing to do

    def timed(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches, while the time is counted that the devices wait for them."""
        began = time.monotonic()
        for batch in batches:
            if self.metrics.is_computed():
                self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    def after_step(self, state: TrainState, done: int, *, saved: bool = False) -> None:
        """Log, validate and save what is due after `done` steps; state: as it lies on the devices.

        saved: whether this state is in a checkpoint already. Raises Stopped where a stop is
        requested, before or in the validation. The checkpoint's metadata then have `pending` true:
        the next start first logs and validates this step, so that the result is the same.
        """
        stop = stop_requests.requested()  # of all processes, so that all have to ask
        # All processes write a checkpoint, so all have to know; the first one's clock counts.
        stop, overdue = processes.from_first(lambda: [stop, self._is_overdue()])
        try:
            if stop is not None:
                raise stop_requests.Stopped(stop)
            self._log_validate_save(state, done, overdue=overdue)
        except stop_requests.Stopped as reason:
            if not saved:
                self._save(self._snapshot(state, done), pending=True)
            raise stop_requests.Stopped(
                f"{reason} (after {self._plan.name} step {done})"
            ) from reason

    def _log_validate_save(self, state: TrainState, done: int, *, overdue: bool) -> None:
        plan, every = self._plan, self._plan.intervals
        last = done == plan.total_steps
        epoch, rest = divmod(done, plan.steps_per_epoch)
        log = last or done % every.log_every_steps == 0
        interval = last or (rest == 0 and epoch % every.validate_every_epochs == 0)
        save = interval or overdue or done % every.checkpoint_every_steps == 0
        means, values, pictures, score = None, {}, {}, 0.0
        if log:
            means = self._means(done)
            watched = {key: data_parallel.first(getattr(state, key)) for key in plan.watched}
            values = means | watched
        self._show(done, means and _shown(means) | {"data_wait": self._share_waited()})
        snapshot = self._snapshot(state, done) if save else None
        if plan.validate and interval:
            found = self._validate(state, done)
            score = found.miou
            values = values | {"selection_miou": found.miou, **found.values}
            pictures = found.pictures
        if values:
            self._recorder.add(done, values, pictures)
        if plan.watch and interval:
            plan.watch(done)
        if log:
            self.metrics.clear()
        if save:
            self._save(snapshot, score)

    def _means(self, done: int) -> dict[str, float | np.ndarray]:
        means, skipped = self.metrics.means()
        if not skipped:
            return means
        _LOG.warning(
            "%s: %d of the steps up to %d were skipped, a loss or gradient was not finite",
            self._plan.name, skipped, done,
        )  # fmt: skip
        return means | {"skipped": skipped}

    def _share_waited(self) -> float:
        """The share of the time since the last log line in which the devices waited for data."""
        began, self._logged_at = self._logged_at, time.monotonic()
        waited, self._waited = self._waited, 0.0
        return waited / (self._logged_at - began)

    def _validate(self, state: TrainState, done: int) -> Validation:
        """Score the student."""
        began = time.monotonic()
        found = self._plan.validate(state)
        self._logged_at += time.monotonic() - began  # that was no training
        _LOG.info(
            "%s step %d: mIoU %.1f %% on the selection split",
            self._plan.name, done, 100 * found.miou,
        )  # fmt: skip
        return found

    def _is_overdue(self) -> bool:
        minutes = self._plan.intervals.checkpoint_every_minutes
        return bool(minutes) and self._checkpoints.minutes_since_save() >= minutes

    def _snapshot(self, state: TrainState, done: int) -> TrainState:
        """The state as numpy arrays. Raises UserError where its weights are not finite."""
        state = data_parallel.fetch(state)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.student)):
            raise UserError(
                f"{self._plan.name} step {done}: weights are not finite; checkpoints before it "
                "are kept, try a smaller learning rate"
            )
        return state

    def _save(self, snapshot: TrainState, score: float = 0.0, *, pending: bool = False) -> None:
        progress = None
        # Its numbers have to be on disk before, since the next start would not write them again.
        if processes.from_first(self._recorder.flush):
            progress = self.metrics.progress() | {"pending": pending}
        self._checkpoints.save(snapshot, self._facts(snapshot), progress, score)

    def _facts(self, snapshot: TrainState) -> dict[str, Any]:
        plan = self._plan
        return {
            **plan.network,
            "stage": plan.name,
            "epoch": plan.first_epoch + int(snapshot.step) // plan.steps_per_epoch,
            "first_epoch": plan.first_epoch,
        }


def _shown(means: Mapping[str, Any]) -> dict[str, float]:
    """What a log line shows of a step's metrics: the signs are in metrics.jsonl alone."""
    return {name: value for name, value in means.items() if name not in signs.NAMES}
