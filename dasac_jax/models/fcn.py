"""FCN-8s on VGG-16-BN."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.models import onnx_layers
from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    channel_dropout,
    conv_norm,
    torch_default,
    upsample,
)
from dasac_jax.models.onnx_graph import Graph
from dasac_jax.models.relu import relu
from dasac_jax.models.vgg import VGGFeatures, vgg_onnx

DROPOUT_RATE = 0.1
# The blocks that end with pool3, pool4 and pool5: their plans, and where they begin.
_BLOCKS = (
    ("64 64 P 128 128 P 256 256 256 P", 0),
    ("512 512 512 P", 24),
    ("512 512 512 P", 34),
)


class VGGHead(nn.Module):
    """7×7 and two 1×1 convolutions on pool5: (B, h, w, 512) → scores (B, h, w, C)."""

    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None
    width: int = 4096

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running: bool, dropout_keys: jax.Array | None
    ) -> jax.Array:
        conv = partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=torch_default)
        norm = partial(BatchNorm, self.width, self.axis_name, self.dtype)
        fc6 = conv(self.width, 7, padding=3, name="0")
        fc7 = conv(self.width, 1, name="4")
        x = relu(conv_norm(fc6, norm(name="1"), x, use_running))
        x = channel_dropout(x, dropout_keys, 0, DROPOUT_RATE)
        x = relu(conv_norm(fc7, norm(name="5"), x, use_running))
        x = channel_dropout(x, dropout_keys, 1, DROPOUT_RATE)
        return conv(self.num_classes, 1, name="8")(x)


def vgg_head_onnx(graph: Graph, x: str, path: str) -> str:
    """`VGGHead` as ONNX operations."""
    x = onnx_layers.relu(
        graph, onnx_layers.conv(graph, x, f"{path}/0", norm=f"{path}/1", padding=3)
    )
    x = onnx_layers.relu(graph, onnx_layers.conv(graph, x, f"{path}/4", norm=f"{path}/5"))
    return onnx_layers.conv(graph, x, f"{path}/8")


class FCN8sVGG(nn.Module):
    """FCN-8s: the head's score, upsampled twice and joined with 1×1 scores of pool4 and pool3."""

    num_classes: int = 19
    dtype: Any = jnp.float32
    axis_name: str | None = None
    frozen_norm: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """(B, H, W, 3) → logits (B, ⌊H/8⌋, ⌊W/8⌋, C) float32.

        dropout_keys: one for each image, (B,); None switches dropout off.
        """
        use_running = self.frozen_norm or not train
        block = partial(VGGFeatures, dtype=self.dtype, axis_name=self.axis_name, remat=self.remat)
        pool3 = block(*_BLOCKS[0], name="block1")(images, use_running)
        pool4 = block(*_BLOCKS[1], name="block2")(pool3, use_running)
        pool5 = block(*_BLOCKS[2], name="block3")(pool4, use_running)
        head = nn.remat(VGGHead, static_argnums=(2,)) if self.remat else VGGHead
        head = head(self.num_classes, self.dtype, self.axis_name, name="vgg_head")
        score = head(pool5, use_running, dropout_keys)
        conv = partial(Conv, self.num_classes, 1, use_bias=True, dtype=self.dtype)
        skip4 = conv(name="score_pool4")(pool4).astype(jnp.float32)
        skip3 = conv(name="score_pool3")(pool3).astype(jnp.float32)
        score = upsample(score, skip4.shape[1:3]) + skip4
        return upsample(score, skip3.shape[1:3]) + skip3

    @nn.nowrap
    def onnx(self, graph: Graph, images: str) -> str:
        """The network as ONNX operations: images (B, 3, H, W) → logits (B, C, h, w)."""
        x, pools = graph.lowered(images), []
        for number, (plan, start) in enumerate(_BLOCKS, start=1):
            x = vgg_onnx(graph, x, f"block{number}", plan, start)
            pools.append(x)
        score = graph.float32(vgg_head_onnx(graph, x, "vgg_head"))
        for number in (4, 3):
            skip = onnx_layers.conv(graph, pools[number - 3], f"score_pool{number}")
            skip = graph.float32(skip)
            score = onnx_layers.upsample(graph, score, onnx_layers.size_of(graph, skip))
            score = graph.add("Add", score, skip, name=f"with_pool{number}")
        return score
