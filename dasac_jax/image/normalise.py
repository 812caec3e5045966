"""Normalisation of images, by ImageNet's channel statistics for the target, others for the source.

The source's are chosen so that both domains have the same channel statistics after normalisation.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dasac_jax.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Mean and standard deviation of each set's pixels, RGB in [0, 1].
TARGET_STATISTICS = ((0.300, 0.344, 0.297), (0.175, 0.180, 0.177))
SOURCE_STATISTICS = {
    "gta5": ((0.481, 0.479, 0.465), (0.243, 0.239, 0.237)),
    "synthia": ((0.315, 0.278, 0.248), (0.225, 0.214, 0.210)),
}


def source_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that give the normalised source the channel statistics of the target.

    With source statistics ms, ss and target statistics mt, st (Cityscapes), the returned
    mean = ms - ss/st * (mt - imagenet mean) and std = ss/st * imagenet std.

    Args:
        name: "gta5", "synthia", or "none", with which the source is normalised like the target.

    Returns:
        mean (3,), std (3,) for RGB in [0, 1].

    Raises:
        UserError: for an unknown name.
    """
    if name == "none":
        return IMAGENET_MEAN, IMAGENET_STD
    if name not in SOURCE_STATISTICS:
        known = ", ".join([*sorted(SOURCE_STATISTICS), "none"])
        raise UserError(f"no channel statistics for source {name!r}; known are: {known}")
    source_mean, source_std = np.array(SOURCE_STATISTICS[name])
    target_mean, target_std = np.array(TARGET_STATISTICS)
    ratio = source_std / target_std
    mean = source_mean - ratio * (target_mean - np.array(IMAGENET_MEAN))
    std = ratio * np.array(IMAGENET_STD)
    return tuple(mean.tolist()), tuple(std.tolist())


def standardise(image: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """(..., 3) RGB in [0, 1] -> (image - mean) / std per channel, float32."""
    return (image - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def normalise(image: jax.Array) -> jax.Array:
    """(..., 3) RGB in 0..255, uint8 or float -> float32 normalised by ImageNet's statistics."""
    return standardise(image.astype(jnp.float32) / 255.0, IMAGENET_MEAN, IMAGENET_STD)
