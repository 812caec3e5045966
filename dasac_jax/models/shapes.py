"""The shapes of a network's variables, without computing the variables."""

import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from dasac_jax.models import create_model


@functools.cache
def variable_shapes(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """{"params/conv1/kernel": (7, 7, 3, 64), …}. Raises UserError for an unknown network."""
    model = create_model(arch, num_classes)
    # Traced only: nothing is computed, and no device is touched.
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.float32))
    )
    return {path: variable.shape for path, variable in flatten_dict(variables, sep="/").items()}
