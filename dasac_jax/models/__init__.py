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

# Layers that no ImageNet network brings along: the heads, and DeepLab's fc6 and fc7 on VGG.
NEW_LAYERS = r"^(layer5|classifier|features/4[24]|vgg_head|score_pool[34])/"


def create_model(
    arch: str, num_classes: int = 19, dtype: Any = jnp.float32, **options: Any
) -> nn.Module:
    """The network `arch`; `apply(variables, images (B, H, W, 3), train)` → logits at stride 8.

    Options: `axis_name` (batch statistics over devices), `frozen_norm` (running statistics are
    used, and kept, in training too). Raises UserError for an unknown name.
    """
    if arch not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"config.arch: no network is called {arch!r}; choose one of {known}")
    return ARCHITECTURES[arch](num_classes=num_classes, dtype=dtype, **options)
