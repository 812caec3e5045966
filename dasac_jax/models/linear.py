"""A transformer's linear layers and layer norms, which keep little for the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dasac_jax.models.anew import computed_anew
from dasac_jax.models.layers import parameter

EPSILON = 1e-6
# As transformers draws weights; the published ones take the place of these numbers.
normal_002 = nn.initializers.truncated_normal(0.02)


class Linear(nn.Module):
    """(…, in) → (…, features), with bias."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, before: Callable[..., jax.Array] | None = None, *given: jax.Array
    ) -> jax.Array:
        """before: a cheap function of x and of `given` that the product is taken of instead of x.

        Its result is computed again for the gradient instead of being kept.
        """
        kernel = parameter(self, "kernel", normal_002, (x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        if before is None:
            return x.astype(self.dtype) @ kernel + bias
        return computed_anew(_Product(before, self.dtype), x, kernel, bias, *given)


class _Product(NamedTuple):
    """A linear layer behind a function, comparable, so that equal blocks are traced once."""

    before: Callable[..., jax.Array]
    dtype: Any

    def __call__(self, x, kernel, bias, *given):
        return self.before(x, *given).astype(self.dtype) @ kernel + bias


class Norm(nn.Module):
    """The weights of a layer norm, for `normalised`: (features,) and (features,) float32."""

    @nn.compact
    def __call__(self, features: int) -> tuple[jax.Array, jax.Array]:
        scale = parameter(self, "scale", nn.initializers.ones, (features,))
        return scale, parameter(self, "bias", nn.initializers.zeros, (features,))


def normalised(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer norm of the last axis: (…, D) → (…, D) float32."""
    x = x.astype(jnp.float32)
    # The variance as the mean square of differences: that of squares minus means loses digits.
    x -= x.mean(-1, keepdims=True)
    variance = jnp.square(x).mean(-1, keepdims=True)
    return x * (lax.rsqrt(variance + EPSILON) * scale) + bias
