"""Images that all have sizes of their own: few compiled programs are alive at a time."""

import gc
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dasac_jax.data.pairs import PairSource
from dasac_jax.evaluation import scores
from dasac_jax.runtime import compiled_sizes, garbage


class Always(nn.Module):
    """Predicts class 1 everywhere, whatever its one weight is."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, x, train=False):
        weight = self.param("weight", nn.initializers.zeros, ())
        return weight * x[..., :2] + jnp.array([0.0, 1.0])


def test_programs_of_many_sizes_do_not_pile_up(tmp_path, monkeypatch):
    garbage.collect_seldom()  # what is here by now takes long to look through each time
    sizes = [(height, 48) for height in range(40, 46)]
    for index, size in enumerate(sizes):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{index}.jpg")
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / f"{index}.png")
    pairs = tuple((f"{index}.jpg", f"{index}.png") for index in range(len(sizes)))
    source = PairSource(str(tmp_path), pairs, (0, 0), "many", num_classes=2)
    monkeypatch.setattr(compiled_sizes, "KEPT", 2)
    monkeypatch.setattr(scores, "_make_room", compiled_sizes.limiter())
    confusion, alive = scores.scoring.confusion, []

    def counted(*arguments, **options):
        found = confusion(*arguments, **options)
        gc.collect()
        alive.append(len(jax.devices()[0].client.live_executables()))
        return found

    monkeypatch.setattr(scores.scoring, "confusion", counted)
    network = scores.Network(
        Path("run"), Always(), {"params": {"weight": np.float32(0)}}, ("a", "b"), {}, {}
    )
    result = scores.of_network("many", network, source)
    assert result.counts[1, 1] == sum(height * width for height, width in sizes)
    assert len(alive) == 6 and alive[1] > alive[0]
    assert max(alive[2:]) <= alive[1]
