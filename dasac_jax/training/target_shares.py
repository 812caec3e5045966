"""Each class's share of the predicted target pixels: watched while adapting, counted at the end.

The images are those of target training, and no label of theirs is opened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from dasac_jax.data import sampling
from dasac_jax.evaluation import scoring
from dasac_jax.reporting import class_shares, metrics_log
from dasac_jax.runtime import logs, processes
from dasac_jax.training import from_config, initial_state
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)


def watcher(run: Run, interval: int) -> Callable[[int], None] | None:
    """What warns of classes that vanish or grow beyond measure while adapting.

    It is called after a step that is recorded, and compares what the teacher predicted in the last
    `interval` steps, on views without noise, with what the baseline predicts on images drawn in the
    same way. None where the baseline's pixels are not known.
    """
    before = _expected(run)
    if before is None:
        return None
    told: set[str] = set()

    def watch(done: int) -> None:
        lines = metrics_log.read(run.folder)
        steps, shares = metrics_log.curve(lines, "adapt", class_shares.CURVE)
        if not len(steps):
            return
        recent = shares[steps > min(done - interval, steps[-1] - 1)]
        for change in class_shares.changes(before, _by_name(run, recent.mean(0)), _left_out(run)):
            if change.name not in told:
                _LOG.warning("adapt step %d: %s", done, change)
            told.add(change.name)

    return watch


def measure(run: Run, reached: Collection[str]) -> dict[str, Any] | None:
    """The entry of metrics.json: shares of the baseline and of the adapted network.

    The baseline's come from the weights stage's counts where there are any, so that a run that
    begins with a baseline from elsewhere (`config.init`) has them too. reached: the stages that
    have left a checkpoint. None without the adaptation, and where nothing is known of the baseline.
    Raises Stopped where a stop is requested.
    """
    stored = processes.from_first(lambda: _as_list(_stored_counts(run)))
    if "adapt" not in reached or not (stored or "baseline" in reached):
        return None
    before = _shares(np.array(stored)) if stored else _count(run, "baseline")
    names = [entry.name for entry in run.classes]
    return class_shares.entry(before, _count(run, "adapt"), names, _left_out(run))


def _count(run: Run, stage: str) -> np.ndarray:
    """(C,) float64: the shares that the network which a stage hands on predicts, by all pixels."""
    handed_on = partial(initial_state.handed_on, stage=stage)
    state, _ = initial_state.shared_state(run, stage, handed_on)
    pairs = run.open("target_train")
    predict = scoring.predictor(from_config.create_model(run.config))
    total, done = np.zeros(len(run.classes), np.int64), 0
    part = processes.part_of(len(pairs))
    with logs.progress(f"predicted pixels, {stage}", len(part), log_every=len(part) or 1) as update:
        for counts in scoring.class_counts(
            predict, state.student, pairs, len(run.classes), batch=run.config.validation_batch
        ):
            total, done = total + counts.sum(0), done + len(counts)
            update(done)
    return _shares(processes.total(total)[None])


def _expected(run: Run) -> dict[str, float] | None:
    """The baseline's shares on images drawn as training draws them; None where they are unknown."""
    counts = _stored_counts(run)
    if counts is None:
        return None
    drawn = sampling.target_probabilities(
        len(counts), run.importance_weights(), len(run.classes), tuple(run.config.left_out)
    )
    each = counts / counts.sum(1, keepdims=True)
    return _by_name(run, drawn.mean(0) @ each)


def _stored_counts(run: Run) -> np.ndarray | None:
    """(N, C): the baseline's predicted pixels by class, as the weights stage counted them."""
    if not run.weights_file.exists():
        return None
    names = [entry.name for entry in run.classes]
    return sampling.load_counts(run.weights_file, run.open("target_train").names, names)


def _shares(counts: np.ndarray) -> np.ndarray:
    """(N, C) pixels → (C,) shares of all of them."""
    return counts.sum(0) / max(counts.sum(), 1)


def _by_name(run: Run, shares: np.ndarray) -> dict[str, float]:
    return dict(zip((entry.name for entry in run.classes), map(float, shares), strict=True))


def _left_out(run: Run) -> list[str]:
    return [run.classes[i].name for i in run.config.left_out]


def _as_list(counts: np.ndarray | None) -> list[list[float]] | None:
    return None if counts is None else counts.tolist()
