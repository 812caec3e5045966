"""A training step that adds up what its batches hold, so that results are known beforehand.

Tests read this file with `runpy`: they are no package that one could import from.
"""

import jax
import numpy as np

from dasac_jax.method import trees
from dasac_jax.method.state import TrainState
from dasac_jax.runtime import data_parallel
from dasac_jax.training import loop
from dasac_jax.training.validation import Validation


class Recorded:
    """What a loop has recorded."""

    def __init__(self):
        self.values, self.images, self.full = [], [], False

    def add(self, step, values, pictures):
        self.values.append((step, dict(values)))
        self.images += [(step, name, picture.shape) for name, picture in pictures.items()]

    def flush(self):
        return not self.full


def begin(step=0):
    return TrainState(
        params={"w": np.zeros(2, np.float32)},
        batch_stats={"mean": np.ones(1, np.float32)},
        teacher={"params": {"w": np.zeros(2, np.float32)}, "batch_stats": {}},
        class_prior=np.zeros(3, np.float32),
        opt_state=(),
        step=np.int32(step),
        seed=np.uint32(1),
    )


def add_up(state, batch):
    """w counts what the batches hold; the loss is what this one holds."""
    number = jax.lax.pmean(batch["source_image"].mean(), data_parallel.AXIS)
    finite = trees.is_finite(number)
    added = jax.tree.map(lambda w: w + number, state.params)
    params = trees.select(finite, added, state.params)
    metrics = {"loss": number, "skipped": 1 - finite}
    return state.replace(params=params, step=state.step + 1), metrics


def batches_of(numbers, asked=None, closed=None):
    """Batches that hold numbers[step]; `asked` gets what is asked for, `closed` the last words."""

    def make(first_step, num_steps):
        if asked is not None:
            asked.append((first_step, num_steps))
        try:
            for number in numbers[first_step : first_step + num_steps]:
                if isinstance(number, BaseException):
                    raise number
                yield {
                    "source_image": np.full((8, 2, 2, 3), number, np.float32),
                    "source_label": np.zeros((8, 2, 2), np.uint8),
                    "source_item": np.arange(8, dtype=np.int32),
                    "target_image": np.zeros((8, 2, 2, 3), np.uint8),
                    "names": [f"image of {number}"],
                }
        finally:
            if closed is not None:
                closed.append(True)

    return make


def plan_of(folder, **changes):
    values = {
        "name": "baseline",
        "newest": folder / "checkpoints",
        "best": folder / "best",
        "layout": data_parallel.layout("baseline", 8, 8),
        "total_steps": 8,
        "steps_per_epoch": 2,
        "first_epoch": 0,
        "network": {"arch": "none"},
        "validate": None,
    }
    intervals = {
        "log_every_steps": 4,
        "checkpoint_every_steps": 3,
        "checkpoint_every_minutes": 0,
        "max_skipped_steps": 3,
        "validate_every_epochs": 1,
    }
    intervals |= {key: changes.pop(key) for key in intervals.keys() & changes.keys()}
    return loop.Plan(**values | changes, intervals=loop.Intervals(**intervals))


def scored(miou):
    picture = np.zeros((4, 6, 3), np.uint8)
    return Validation(miou, {"selection": picture}, {"thresholds": np.full(3, miou)})


def kept(folder):
    return sorted(int(path.name) for path in folder.iterdir())
