"""A stage's checkpoints while it trains: the newest states, and apart from them the best one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax

from dasac_jax.checkpoints import store
from dasac_jax.method.state import TrainState

_NEWEST_KEPT = 2  # so that there is one left where the last one is damaged


class StageCheckpoints:
    """Saves states in the background, in folders of their own for the newest and the best one.

    best_score: the mIoU in 0..1 that a state has to exceed to be the best.
    """

    def __init__(self, newest: Path, best: Path, best_score: float) -> None:
        self.best_score = best_score
        self._newest = store.open_manager(newest, keep=_NEWEST_KEPT)
        self._best = store.open_manager(best, keep=1)
        self._saved_at = time.monotonic()

    def __enter__(self) -> StageCheckpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # After a second Ctrl-C the program ends at once, without waiting for what is being
        # written; where a connection broke, the process that the writing needs is gone.
        if kind in (KeyboardInterrupt, jax.errors.JaxRuntimeError):
            return
        try:
            store.finish(self._newest)  # which may be about to write the best one first
        finally:
            store.finish(self._best)

    def minutes_since_save(self) -> float:
        """How long ago the newest state was saved, or training began."""
        return (time.monotonic() - self._saved_at) / 60

    def save(self, state: TrainState, facts: dict[str, Any]) -> None:
        """Save the newest state, numpy arrays; facts: what JSON can hold."""
        facts = facts | {"best_score": self.best_score}
        # Only behind the best state: these facts say its score, so that a run which resumes from
        # here would not save it again.
        store.save(self._newest, state, metadata=facts, after=self._best)
        self._saved_at = time.monotonic()

    def save_if_best(self, state: TrainState, score: float, facts: dict[str, Any]) -> None:
        """Keep a state apart where its score is the best so far."""
        if score > self.best_score:
            self.best_score = score
            store.save(self._best, state, metadata=facts | {"best_score": score})
