"""A network whose predictions are known beforehand, and checkpoints of it."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.image.normalise import normalise


class ReadsRed(nn.Module):
    """Predicts class k where the red channel is 10 k; `shift` classes further on."""

    num_classes: int = 19
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        shift = self.param("shift", nn.initializers.zeros, ())
        self.variable("batch_stats", "unused", jnp.zeros, ())
        codes = normalise(jnp.arange(self.num_classes)[:, None] * jnp.full((1, 3), 10.0))[:, 0]
        distance = jnp.abs(x[..., :1] - codes)
        return -100 * jnp.roll(distance, shift.astype(int), axis=-1)


@flax.struct.dataclass
class State:
    """What a checkpoint of it holds."""

    params: dict
    batch_stats: dict
    teacher: dict
    step: np.ndarray


@pytest.fixture
def save(monkeypatch):
    """save(folder, classes, **facts): a checkpoint whose student predicts what red says.

    Its teacher predicts one class further on. facts: metadata besides the network's.
    """
    monkeypatch.setitem(models.ARCHITECTURES, "reads_red", ReadsRed)

    def write(folder: Path, classes: int = 19, **facts) -> Path:
        stats = {"unused": np.zeros((), np.float32)}
        right, shifted = ({"shift": np.float32(shift)} for shift in (0, 1))
        state = State(right, stats, {"params": shifted, "batch_stats": stats}, np.int32(7))
        manager = store.open_manager(folder)
        facts = {"arch": "reads_red", "num_classes": classes, "stage": "adapt", **facts}
        store.save(manager, state, metadata=facts)
        store.finish(manager)
        return folder

    return write
