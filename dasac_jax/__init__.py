"""DA-SAC: self-supervised augmentation consistency for adapting semantic segmentation, in JAX."""

__version__ = "0.1.0"
