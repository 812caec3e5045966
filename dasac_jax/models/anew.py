"""What is computed once, what again, and when: XLA would decide otherwise."""

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
        arguments = (after(upstream, arguments[0]), *arguments[1:])
    else:
        arguments, upstream = lax.optimization_barrier((arguments, upstream))
    return jax.vjp(function, *arguments)[1](upstream)


computed_anew.defvjp(_forward, _backward)


def after(first: jax.Array, x: jax.Array) -> jax.Array:
    """x (…), with which XLA on a CPU can compute nothing before `first` (…) is there.

    x is divided by 1, which XLA does not know to be 1, since it follows from `first`. So XLA does
    not compute early what would then lie in memory until it is needed. And where `first` is a
    gradient, XLA does not find that the forward pass has computed the same, to keep that instead.
    Where the first number of `first` is not finite, all of the result is NaN.
    """
    one = 1 + 0 * first.ravel()[0].astype(x.dtype)
    return x / jnp.full_like(x, one)


def computed_once(x: jax.Array) -> jax.Array:
    """x (…), which XLA on CPU then computes once instead of once for each operation that reads it.

    XLA fuses sums into the operations that read them, so that in a chain of residual blocks each
    would compute the sums of all blocks before it anew. It removes optimization barriers before it
    fuses, but it never repeats a division. So x is divided by 1 (by 2 where x is NaN, so that the
    compiler cannot know the divisor), which is exact, and so is the gradient. The divisor is an
    array since XLA turns a division by a scalar into a product, which it repeats. On GPUs nothing
    is done: it would keep the sums out of the products of their library.
    """
    if platform() != "cpu":
        return x
    one = jnp.where(jnp.isnan(x), 2, 1).astype(x.dtype)
    return x / lax.stop_gradient(one)
