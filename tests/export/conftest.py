"""Checkpoints of networks with drawn weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax import models
from dasac_jax.checkpoints import store


@struct.dataclass
class State:
    """What a checkpoint of an adaptation holds of networks."""

    params: Any
    batch_stats: Any
    teacher: Any
    step: Any


def drawn(model: nn.Module, seed: int = 0) -> dict[str, Any]:
    """Variables whose network tells pixels apart and keeps its activations in range."""
    rng = np.random.default_rng(seed)
    ranges = {"var": (0.5, 1.5), "scale": (0.2, 0.6), "kernel": (-1, 1)}
    found = {}
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    for path, entry in flatten_dict(shapes, sep="/").items():
        shape = entry.shape
        low, high = ranges.get(path.rpartition("/")[2], (-0.1, 0.1))
        values = rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)
        if path.endswith("kernel"):
            values *= np.float32((6 / np.prod(shape[:-1])) ** 0.5)
        found[path] = values
    return unflatten_dict(found, sep="/")


@pytest.fixture(scope="session")
def draw() -> Callable[..., dict[str, Any]]:
    """draw(model, seed=0): variables of a network."""
    return drawn


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """save(folder, variables, teacher, **facts): a checkpoint of the demo's network."""

    def write(folder: Path, variables: Any, teacher: Any, **facts: Any) -> Path:
        manager = store.open_manager(folder)
        state = State(variables["params"], variables["batch_stats"], teacher, np.int32(7))
        known = {"arch": "deeplabv2_demo", "num_classes": 19, "stage": "adapt"}
        store.save(manager, state, metadata=known | facts)
        store.finish(manager)
        return folder

    return write


@pytest.fixture(scope="session")
def demo_checkpoint(draw, save, tmp_path_factory) -> Path:
    """A checkpoint of the demo's network with a teacher that differs."""
    folder = tmp_path_factory.mktemp("demo") / "checkpoint"
    model = models.create_model("deeplabv2_demo")
    return save(folder, draw(model), draw(model, 1), epoch=3)
