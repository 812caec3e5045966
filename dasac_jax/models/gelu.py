"""The exact GELU, with a gradient that keeps little in memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x · Φ(x), of x (…). Its gradient is computed from x alone.

    JAX would keep four more arrays of the same size, the largest ones in the network.
    """
    return nn.gelu(x, approximate=False)


def _gelu_forward(x):
    return gelu(x), x


def _gelu_backward(x, upstream):
    wide = x.astype(jnp.float32)
    share = 0.5 * (1 + lax.erf(wide * np.float32(2**-0.5)))  # Φ(x)
    density = jnp.exp(-0.5 * wide * wide) * np.float32((2 * np.pi) ** -0.5)
    return ((share + wide * density).astype(x.dtype) * upstream,)


gelu.defvjp(_gelu_forward, _gelu_backward)
