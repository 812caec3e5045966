"""Cross entropy as both losses use it.

An ignored pixel adds 0 to the sum but stays in the number of pixels that it is divided by.
"""

import jax
import jax.numpy as jnp


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy of every pixel, 0 where the label is ignored.

    Args:
        logits: (B, H, W, C), any float.
        labels: (B, H, W) int32; everything outside 0..C−1 (255 ignored, −1 padded) is ignored.

    Returns:
        (B, H, W) float32.
    """
    # Pixels last, as upsampling leaves them in memory: otherwise a GPU writes the logits of whole
    # images once more, in the other order.
    logits = jnp.swapaxes(logits.astype(jnp.float32), -1, -2)
    # A masked sum instead of indexing: its gradient needs no scatter.
    chosen = labels[..., None, :] == jnp.arange(logits.shape[-2])[:, None]
    of_label = jnp.where(chosen, logits, 0).sum(-2)
    return jnp.where(chosen.any(-2), jax.nn.logsumexp(logits, axis=-2) - of_label, 0)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Scalar: the mean of `pixel_cross_entropy` over all pixels, ignored ones included."""
    # Image by image: float32 sums over millions of pixels stay accurate.
    return pixel_cross_entropy(logits, labels).mean(2).mean(1).mean(0)


def weighted_cross_entropy(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Scalar: the mean over all pixels of `pixel_cross_entropy` times weight (B, H, W)."""
    loss = weight * pixel_cross_entropy(logits, labels)
    return loss.mean(2).mean(1).mean(0)
