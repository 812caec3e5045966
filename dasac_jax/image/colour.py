"""Colour operations as Pillow and torchvision define them, on RGB images in [0, 1].

Each takes an image (H, W, 3) float32 and returns one of the same shape, clipped to [0, 1].
"""

import jax
import jax.numpy as jnp

LUMA = (0.299, 0.587, 0.114)


def luma(image: jax.Array) -> jax.Array:
    """(H, W, 3) -> (H, W): perceived brightness, with the weights of ITU-R BT.601."""
    red, green, blue = LUMA
    return red * image[..., 0] + green * image[..., 1] + blue * image[..., 2]


def grey(image: jax.Array) -> jax.Array:
    """The image's luma in all three channels."""
    return jnp.broadcast_to(luma(image)[..., None], image.shape)


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with black: factor 0 is black, 1 the image."""
    return jnp.clip(factor * image, 0.0, 1.0)


def adjust_contrast(image: jax.Array, factor: jax.Array, valid: jax.Array) -> jax.Array:
    """Blend with the mean luma: factor 0 is a flat grey, 1 the image.

    Args:
        valid: (H, W) bool, the pixels that the mean is taken over: all but padding.
    """
    weights = valid.astype(jnp.float32)
    mean = (luma(image) * weights).sum() / jnp.maximum(weights.sum(), 1.0)
    return jnp.clip(factor * image + (1.0 - factor) * mean, 0.0, 1.0)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with the grey image: factor 0 is grey, 1 the image."""
    return jnp.clip(factor * image + (1.0 - factor) * luma(image)[..., None], 0.0, 1.0)


def adjust_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Rotate the hue (of HSV) by `turn`, in full turns, from -1 to 1."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(  # in sixths of a turn
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )

    def channel(phase: float) -> jax.Array:
        k = phase + hue + 6.0 * turn
        k = k - 6.0 * jnp.floor(k / 6.0)
        return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.clip(jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1), 0.0, 1.0)


def jitter(image: jax.Array, factors: jax.Array, order: jax.Array, valid: jax.Array) -> jax.Array:
    """Brightness, contrast, saturation and hue, one after another.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        factors: (4,) float32: of brightness, contrast and saturation, and the hue's turn.
        order: (4,) int32, a permutation; entry i names the operation that comes i-th.
        valid: (H, W) bool, the pixels that are not padding.
    """
    operations = (
        lambda x: adjust_brightness(x, factors[0]),
        lambda x: adjust_contrast(x, factors[1], valid),
        lambda x: adjust_saturation(x, factors[2]),
        lambda x: adjust_hue(x, factors[3]),
    )
    return jax.lax.fori_loop(
        0, len(operations), lambda i, x: jax.lax.switch(order[i], operations, x), image
    )
