"""Steps with a loss or gradient that is not finite are skipped, on the device, without a look."""

from typing import Any

import jax
import jax.numpy as jnp

from dasac_jax.method.trees import map_numbers, square_norms


def is_sound(*trees: Any) -> jax.Array:
    """() bool: whether every number of these pytrees is finite, and its square too.

    The square because Adam's second moment is one: it would never come down from infinity.
    """
    return jnp.isfinite(square_norms(trees)).all()


def choose(sound: jax.Array, new: Any, old: Any) -> Any:
    """The pytree `new` where `sound` () bool holds, else `old`, bit for bit."""
    return map_numbers(lambda a, b: jnp.where(sound, a, b), new, old)


def skipped(sound: jax.Array) -> jax.Array:
    """() float32, for the metrics: 1 for a step that was skipped, else 0."""
    return 1 - sound.astype(jnp.float32)
