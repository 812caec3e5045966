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
        self._manager = store.open_manager(newest, keep=_NEWEST_KEPT, best=best)
        self._saved_at = time.monotonic()

    def __enter__(self) -> StageCheckpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # After a second Ctrl-C the program ends at once, without waiting for what is being
        # written; where a connection broke, the process that the writing needs is gone.
        if kind not in (KeyboardInterrupt, jax.errors.JaxRuntimeError):
            store.finish(self._manager)

    def minutes_since_save(self) -> float:
        """How long ago the newest state was saved, or training began."""
        return (time.monotonic() - self._saved_at) / 60

    def save(
        self,
        state: TrainState,
        facts: dict[str, Any],
        progress: dict[str, Any] | None,
        score: float = 0.0,
    ) -> None:
        """Save a state, numpy arrays, as the newest one, and as the best one if its score is that.

        facts: what JSON can hold. progress: facts of the newest state alone; with None only the
        best one is saved. score: the mIoU where the state has just been validated.
        """
        best = score > self.best_score
        self.best_score = max(score, self.best_score)
        facts = facts | {"best_score": self.best_score}
        newest = None if progress is None else facts | progress
        if best or newest is not None:
            store.save(self._manager, state, metadata=newest, best=facts if best else None)
        if newest is not None:
            self._saved_at = time.monotonic()
