"""Convolutions as matrix products, for the shapes where XLA's own convolutions are slow on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def pointwise(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """A 1×1 convolution: (B, H, W, C), (C, D) → (B, H, W, D).

    The product is over one axis of pixels: over three, XLA transposes x for the gradient.
    """
    y = x.reshape(-1, x.shape[-1]) @ matrix
    return y.reshape(*x.shape[:-1], -1)


def neighbourhoods(x: jax.Array, k: int, padding: int) -> jax.Array:
    """The k × k pixels around each: (B, H, W, C) → (B, H', W', k · k · C), as a kernel has them."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    return jnp.concatenate(shifted, axis=-1)


def shifted(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    """A convolution as one product of x and all taps, whose results are shifted and added.

    (B, H, W, C), (k, k, C, D) → (B, H', W', D). XLA's convolution takes 2 to 15 times as long on
    CPU for a wide dilation, forward and for the kernel's gradient. Taps that see only padding are
    left out: with dilation 24 on 17 rows, three of nine remain.
    """
    k, _, channels, features = kernel.shape
    height, width = (n + 2 * padding - dilation * (k - 1) for n in x.shape[1:3])
    shifts = [(i * dilation - padding, j * dilation - padding) for i in range(k) for j in range(k)]
    taps = kernel.reshape(k * k, channels, features)
    seen = [
        n
        for n, (down, across) in enumerate(shifts)
        if -height < down < x.shape[1] and -width < across < x.shape[2]
    ]
    products = pointwise(x, jnp.moveaxis(taps[np.array(seen)], 0, 1).reshape(channels, -1))
    total = 0.0
    for n, tap in enumerate(seen):
        down, across = shifts[tap]
        product = products[..., n * features : (n + 1) * features].astype(jnp.float32)
        total += _moved(_moved(product, 1, down, height), 2, across, width)
    return total.astype(x.dtype)


def _moved(x: jax.Array, axis: int, shift: int, length: int) -> jax.Array:
    """`length` entries of an axis, starting at `shift`; 0 outside x."""
    size = x.shape[axis]
    x = lax.slice_in_dim(x, max(shift, 0), min(shift + length, size), axis=axis)
    before = max(-shift, 0)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, length - before - x.shape[axis])
    return jnp.pad(x, padding)
