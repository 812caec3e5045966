"""Functions of which nothing but their arguments is kept for the gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dasac_jax.models.platform import platform


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def computed_anew(function: Callable[..., Any], *arguments: jax.Array) -> Any:
    """function(*arguments), which is computed again for the gradient.

    `jax.checkpoint` means the same, but XLA's CPU compiler, as JAX 0.10 brings it, removes the
    barriers that it sets, finds that things are computed twice, and keeps them after all. function:
    one that needs no value from around it but its arguments.
    """
    return function(*arguments)


def _forward(function, *arguments):
    return function(*arguments), arguments


def _backward(function, arguments, upstream):
    if platform() == "cpu":
        # A division by 1, which XLA does not know to be 1: so it cannot tell that the rest is the
        # same computation. It waits for the gradient, or XLA might compute it long before.
        first = arguments[0]
        one = 1 + 0 * upstream.ravel()[0].astype(first.dtype)
        arguments = (first / jnp.full_like(first, one), *arguments[1:])
    else:
        arguments, upstream = lax.optimization_barrier((arguments, upstream))
    return jax.vjp(function, *arguments)[1](upstream)


computed_anew.defvjp(_forward, _backward)
