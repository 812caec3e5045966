"""The networks, by name."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.errors import UserError
from dasac_jax.models.deeplabv2 import DeepLabV2ResNet, DeepLabV2VGG
from dasac_jax.models.dinov2 import DINOv2Segmenter
from dasac_jax.models.fcn import FCN8sVGG
from dasac_jax.models.layers import upsample

__all__ = [
    "ARCHITECTURES",
    "NEW_LAYERS",
    "create_model",
    "has_batch_norm",
    "logits_at",
    "upsample",
]

ARCHITECTURES = {
    "deeplabv2_resnet101": DeepLabV2ResNet,
    "deeplabv2_vgg16_bn": DeepLabV2VGG,
    "fcn_vgg16_bn": FCN8sVGG,
    # The demo's: the same network with fewer blocks and channels.
    "deeplabv2_demo": partial(
        DeepLabV2ResNet, blocks=(1, 1, 2, 1), widths=(16, 24, 32, 32), stem=16
    ),
    # Twice as wide: learns some hundreds of photographs from random weights on a CPU.
    "deeplabv2_small": partial(
        DeepLabV2ResNet, blocks=(1, 1, 2, 1), widths=(32, 48, 64, 64), stem=32
    ),
    "dinov2_vits14": partial(DINOv2Segmenter, width=384, depth=12, heads=6),
    "dinov2_vitb14": partial(DINOv2Segmenter, width=768, depth=12, heads=12),
    "dinov2_vitl14": partial(DINOv2Segmenter, width=1024, depth=24, heads=16),
    # So small that it learns from the demo's images without pre-training.
    "dinov2_demo": partial(DINOv2Segmenter, width=96, depth=4, heads=3),
}

# Paths of layers that no network trained on ImageNet has: the heads, and DeepLab's fc6 and fc7 on
# VGG.
NEW_LAYERS = r"^(layer5|classifier|features/4[24]|vgg_head|score_pool[34]|head)/"


# Networks with layer norms, which normalise each token by itself and need no running statistics.
_WITHOUT_BATCH_NORM = r"^dinov2_"


def has_batch_norm(arch: str) -> bool:
    """Whether a network has batch norm: running statistics, which adapt to a domain."""
    return re.match(_WITHOUT_BATCH_NORM, arch) is None


def create_model(
    arch: str, num_classes: int = 19, dtype: Any = jnp.float32, **options: Any
) -> nn.Module:
    """The network called `arch`: `apply(variables, images, train)` returns its logits.

    Images are (B, H, W, 3) float32, normalised; logits are (B, h, w, num_classes) float32, at
    stride 8, or what `dinov2.DINOv2Segmenter` says; `logits_at` brings them to an image's size. The
    network computes in `dtype`. Options: `axis_name` (of the devices whose batch statistics are
    averaged), `frozen_norm` (normalise with the running statistics in training too, and keep
    them), `remat` (compute activations anew for the gradient instead of keeping them). Raises
    UserError for an unknown name, and for `frozen_norm` where there is no batch norm.
    """
    if arch not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"config.arch: no network is called {arch!r}; choose one of {known}")
    if not has_batch_norm(arch):
        options.pop("axis_name", None)  # there is nothing to average
        if options.pop("frozen_norm", False):
            raise UserError(f"frozen_norm: {arch} has no batch norm to freeze: leave it out")
    return ARCHITECTURES[arch](num_classes=num_classes, dtype=dtype, **options)


def logits_at(model: nn.Module, logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Logits (B, h, w, C) of a network, bilinear, at an image's size (H, W): (B, H, W, C) float32.

    Corners are aligned unless the network says `align_corners = False`.
    """
    return upsample(logits, size, align_corners=getattr(model, "align_corners", True))
