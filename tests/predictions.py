"""A network whose predictions are known beforehand, pictures for it, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import struct
from PIL import Image

from dasac_jax import predict
from dasac_jax.checkpoints import store
from dasac_jax.image.normalise import normalise


class ReadsGreen(nn.Module):
    """Predicts class k where green is nearest to 10 k, the surer the more `weight`."""

    num_classes: int = 19
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        weight = self.param("weight", nn.initializers.ones, ())
        codes = normalise(jnp.arange(self.num_classes)[:, None] * jnp.full((1, 3), 10.0))[:, 1]
        return -weight * jnp.abs(x[..., 1:2] - codes)


@struct.dataclass
class State:
    params: Any
    step: Any
    teacher: Any


def save(folder, weight=10.0, teacher=2.0, **facts):
    manager = store.open_manager(folder)
    state = State(
        {"weight": np.float32(weight)},
        np.int32(1),
        {"params": {"weight": np.float32(teacher)}},
    )
    store.save(
        manager,
        state,
        metadata={"arch": "reads_green", "num_classes": 19, "stage": "adapt"} | facts,
    )
    store.finish(manager)
    return folder


def picture(path, seed=0, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 180, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def call(*arguments):
    """The command's exit code."""
    try:
        predict.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image)


def tree(folder):
    """Every file's bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "images.jsonl"
    }


def refused(capsys, words, *arguments):
    capsys.readouterr()
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    for word in words:
        assert word in said
