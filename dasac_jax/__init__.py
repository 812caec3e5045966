"""DA-SAC: self-supervised augmentation consistency for adapting semantic segmentation, in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dasac_jax.version import __version__

if TYPE_CHECKING:
    import os

    from dasac_jax.inference.trained_network import Network

__all__ = ["__version__", "load"]


def load(checkpoint: str | os.PathLike[str], *, teacher: bool = False) -> Network:
    """A trained network: `labels, confidence = load("runs/demo").predict(image)`.

    checkpoint: a run's work directory, a stage's folder, a folder of steps or one step's folder.
    teacher: whether to take the teacher instead of the student. Images are (H, W, 3) or
    (B, H, W, 3) uint8 RGB; results have their size. Raises UserError where there is no checkpoint.
    """
    from dasac_jax.inference import (
        trained_network,  # late: the version alone is to be had without JAX
    )

    return trained_network.load(checkpoint, teacher=teacher)
