"""The order in which XLA computes on CPUs, where it decides how much memory a network takes."""

import jax
import jax.numpy as jnp

from dasac_jax.models.platform import platform


def not_before(known: jax.Array, kernel: jax.Array) -> jax.Array:
    """`kernel` (…), which XLA on CPU cannot read before `known` (…) is computed.

    XLA computes what depends on weights alone at the start of a program, and both branches of a
    network at once, and keeps the results until they are needed. It removes optimization barriers
    before it plans the memory, so the kernel is multiplied by a 1 that is read from `known`: by 2
    where that entry is NaN, which makes the results NaN anyway, so that the compiler cannot know
    the factor. Nothing is done on GPUs.
    """
    if platform() != "cpu":
        return kernel
    return kernel * jnp.where(jnp.isnan(known.ravel()[0]), 2, 1).astype(kernel.dtype)
