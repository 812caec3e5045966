"""The ReLU, with gradients that keep as few arrays as they need."""

import jax
import jax.numpy as jnp

from dasac_jax.models.anew import computed_once


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0) of x (…), whose gradient is computed from the result instead of from x.

    The next layer keeps the result anyway. As x is not kept, a GPU's library can compute the ReLU
    together with the convolution before it.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, upstream):
    # XLA would turn y > 0 into x > 0 and so keep x.
    return (jnp.where(y != 0, upstream, 0),)


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def relu_once(x: jax.Array) -> jax.Array:
    """`computed_once(relu(x))` of x (…), for which one array is kept for the gradient, not two."""
    return computed_once(jnp.maximum(x, 0))


def _relu_once_forward(x):
    y = relu_once(x)
    return y, y


def _relu_once_backward(y, upstream):
    return (computed_once(_relu_backward(y, upstream)[0]),)


relu_once.defvjp(_relu_once_forward, _relu_once_backward)
