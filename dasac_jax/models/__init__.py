"""The networks, by name."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dasac_jax.errors import UserError
from dasac_jax.models.deeplabv2 import DeepLabV2ResNet, DeepLabV2VGG
from dasac_jax.models.fcn import FCN8sVGG
from dasac_jax.models.layers import upsample

__all__ = ["ARCHITECTURES", "NEW_LAYERS", "create_model", "upsample"]

ARCHITECTURES = {
    "deeplabv2_resnet101": DeepLabV2ResNet,
    "deeplabv2_vgg16_bn": DeepLabV2VGG,
    "fcn_vgg16_bn": FCN8sVGG,
    # The demo's: the same network with fewer blocks and channels.
    "deeplabv2_demo": partial(
        DeepLabV2ResNet, blocks=(1, 1, 2, 1), widths=(16, 24, 32, 32), stem=16
    ),
}

# Paths of layers that no network trained on ImageNet has: the heads, and DeepLab's fc6 and fc7 on
# VGG.
NEW_LAYERS = r"^(layer5|classifier|features/4[24]|vgg_head|score_pool[34])/"


def create_model(
    arch: str, num_classes: int = 19, dtype: Any = jnp.float32, **options: Any
) -> nn.Module:
    """The network called `arch`: `apply(variables, images, train)` returns logits at stride 8.

    Images are (B, H, W, 3) float32, normalised; logits are (B, h, w, num_classes) float32. The
    network computes in `dtype`. Options: `axis_name` (of the devices whose batch statistics are
    averaged), `frozen_norm` (normalise with the running statistics in training too, and keep
    them), `remat` (compute activations anew for the gradient instead of keeping them). Raises
    UserError for an unknown name.
    """
    if arch not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"config.arch: no network is called {arch!r}; choose one of {known}")
    return ARCHITECTURES[arch](num_classes=num_classes, dtype=dtype, **options)
