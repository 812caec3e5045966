"""Gaussian blur whose radius may be a traced value."""

import jax
import jax.numpy as jnp

REACH = 8  # pixels to either side: four standard deviations of the widest blur in use (2 pixels)


def gaussian_blur(image: jax.Array, radius: jax.Array) -> jax.Array:
    """Blur with a Gaussian; beyond the border the border pixel repeats, as in Pillow.

    Args:
        image: (H, W, C) float32.
        radius: standard deviation in pixels, above 0 and at most 2 (wider ones are cut off).

    Returns:
        (H, W, C) float32.
    """
    H, W, C = image.shape
    taps = jnp.exp(-0.5 * jnp.square(jnp.arange(-REACH, REACH + 1) / radius))
    taps = taps / taps.sum()
    padded = jnp.pad(image, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    # Columns and channels share one axis, so that the innermost loop is long even for small C.
    packed = padded.reshape(H + 2 * REACH, (W + 2 * REACH) * C)
    columns = sum(tap * packed[:, i * C : (i + W) * C] for i, tap in enumerate(taps))
    rows = sum(tap * columns[i : i + H] for i, tap in enumerate(taps))
    return rows.reshape(H, W, C)
