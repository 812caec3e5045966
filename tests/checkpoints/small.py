"""Small states, saved as the training saves them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from dasac_jax.checkpoints import store


@struct.dataclass
class State:
    params: Any
    opt_state: Any
    class_prior: Any
    step: Any
    seed: Any


def state(step: int = 3, classes: int = 19) -> State:
    rng = np.random.default_rng(step)
    params = {
        "head": {"kernel": rng.normal(size=(3, 3, 8, classes)).astype(np.float32)},
        "stem": {"bias": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)},
        "half": jnp.arange(3, dtype=jnp.bfloat16) / 3,
    }
    optimiser = optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))
    return State(
        params=params,
        opt_state=optimiser.init(params),
        class_prior=rng.random(classes).astype(np.float32),
        step=jnp.asarray(step, jnp.int32),
        seed=np.asarray(2**32 - 1, np.uint32),
    )


def write(folder: Path, *steps: int, keep: int = 2) -> None:
    manager = store.open_manager(folder, keep=keep)
    for step in steps:
        store.save(manager, state(step), metadata={"epoch": step})
    store.finish(manager)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same_bits(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
