"""DeepLabv2 on ResNet and on VGG-16-BN: logits at stride 8, four atrous branches summed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.models import onnx_layers, products
from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    conv_norm,
    max_pool_ceil,
    normal_001,
)
from dasac_jax.models.onnx_graph import Graph
from dasac_jax.models.platform import platform
from dasac_jax.models.relu import relu, relu_once
from dasac_jax.models.vgg import VGGFeatures, vgg_onnx

ATROUS_RATES = (6, 12, 18, 24)
_STRIDES = (1, 2, 1, 1)  # of the ResNet's stages
_DILATIONS = (1, 1, 2, 4)
_VGG = "64 64 P 128 128 P 256 256 256 P 512 512 512 D512 D512 D512 F1024 F1024"


class AtrousHead(nn.Module):
    """Sum of four dilated 3×3 convolutions: (B, h, w, D) → logits (B, h, w, C) float32."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        convs = [
            Conv(self.num_classes, dilation=rate, use_bias=True, dtype=self.dtype, name=str(i))
            for i, rate in enumerate(ATROUS_RATES)
        ]
        if products.few_outputs(x.shape[-1], self.num_classes):
            kernels, biases = zip(*(conv.weights(x.shape[-1]) for conv in convs), strict=True)
            kernels = [kernel.astype(self.dtype) for kernel in kernels]
            results = products.shifted(x.astype(self.dtype), kernels, ATROUS_RATES)
            branches = [y + bias for y, bias in zip(results, biases, strict=True)]
        else:
            branches = [conv(x).astype(jnp.float32) for conv in convs]
        return sum(branches[1:], branches[0])


def atrous_head_onnx(graph: Graph, x: str, path: str) -> str:
    """`AtrousHead` as ONNX operations."""
    branches = [
        graph.float32(onnx_layers.conv(graph, x, f"{path}/{i}", dilation=rate))
        for i, rate in enumerate(ATROUS_RATES)
    ]
    return graph.add("Sum", *branches, name=path)


class Shortcut(nn.Module):
    """Projection of a stage's first block: 1×1 convolution and batch norm."""

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, use_running: bool, after: jax.Array) -> jax.Array:
        conv = self.conv(self.features, 1, stride=self.stride, name="0")
        return conv_norm(conv, self.norm(self.features, name="1"), x, use_running, after)


class Bottleneck(nn.Module):
    """1×1, dilated 3×3, 1×1 (×4 channels) with a residual; the stride sits on the first 1×1."""

    width: int
    stride: int
    dilation: int
    project: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, use_running: bool) -> jax.Array:
        conv1 = self.conv(self.width, 1, stride=self.stride, name="conv1")
        conv2 = self.conv(self.width, 3, dilation=self.dilation, name="conv2")
        conv3 = self.conv(4 * self.width, 1, name="conv3")
        y = relu(conv_norm(conv1, self.norm(self.width, name="bn1"), x, use_running))
        y = relu(conv_norm(conv2, self.norm(self.width, name="bn2"), y, use_running))
        y = conv_norm(conv3, self.norm(4 * self.width, name="bn3"), y, use_running)
        shortcut = x
        if self.project:
            shortcut = Shortcut(
                4 * self.width, self.stride, self.conv, self.norm, name="downsample"
            )(x, use_running, after=y)
        return residual(y, shortcut)


def residual(y: jax.Array, shortcut: jax.Array) -> jax.Array:
    """relu(y + shortcut) of (B, H, W, C), computed once and in little memory."""
    if platform() != "cpu":
        return relu_once(y + shortcut)
    # In the shape of the products that they come from: else XLA writes neither over the other.
    total = y.reshape(-1, y.shape[-1]) + shortcut.reshape(-1, y.shape[-1])
    return relu_once(total).reshape(y.shape)


def bottleneck_onnx(
    graph: Graph, x: str, path: str, *, stride: int, dilation: int, project: bool
) -> str:
    """`Bottleneck` with its `Shortcut` as ONNX operations."""

    def conv_norm(x: str, number: int, **options: int) -> str:
        norm = f"{path}/bn{number}"
        return onnx_layers.conv(graph, x, f"{path}/conv{number}", norm=norm, **options)

    shortcut = x
    if project:
        place = f"{path}/downsample"
        shortcut = onnx_layers.conv(graph, x, f"{place}/0", norm=f"{place}/1", stride=stride)
    y = onnx_layers.relu(graph, conv_norm(x, 1, stride=stride))
    y = onnx_layers.relu(graph, conv_norm(y, 2, dilation=dilation))
    y = conv_norm(y, 3)
    return onnx_layers.relu(graph, graph.add("Add", y, shortcut, name=path))


class Stage(nn.Module):
    """A sequence of bottlenecks: (B, H, W, C) → (B, H', W', 4 · width).

    The first one has the stage's stride and projects its shortcut. With `remat` only the inputs of
    the bottlenecks are kept for the gradient.
    """

    blocks: int
    width: int
    stride: int
    dilation: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, use_running: bool) -> jax.Array:
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        # Equal blocks are then traced once, which makes starts faster.
        block = nn.jit(block, static_argnums=(2,))
        for i in range(self.blocks):
            x = block(
                self.width,
                self.stride if i == 0 else 1,
                self.dilation,
                project=i == 0,
                conv=self.conv,
                norm=self.norm,
                name=str(i),
            )(x, use_running)
        return x


class DeepLabV2ResNet(nn.Module):
    """DeepLabv2 on a dilated ResNet: stage 2 strides, stages 3 and 4 dilate by 2 and 4."""

    num_classes: int = 19
    dtype: Any = jnp.float32
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 64
    kernel_init: Callable[..., jax.Array] = normal_001
    axis_name: str | None = None
    frozen_norm: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """(B, H, W, 3) → logits (B, h, w, C) float32, h = ⌈(⌊⌈H/2⌉/2⌋+1)/2⌉."""
        del dropout_keys  # this network has no dropout
        use_running = self.frozen_norm or not train
        conv = partial(Conv, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(BatchNorm, axis_name=self.axis_name, dtype=self.dtype)
        stem = DeepLabV2ResNet._stem
        stem = nn.remat(stem, static_argnums=(2, 3, 4)) if self.remat else stem
        x = stem(self, images, use_running, conv, norm)
        layout = zip(self.blocks, self.widths, _STRIDES, _DILATIONS, strict=True)
        for i, (blocks, width, stride, dilation) in enumerate(layout, start=1):
            stage = Stage(blocks, width, stride, dilation, conv, norm, self.remat, name=f"layer{i}")
            x = stage(x, use_running)
        return AtrousHead(self.num_classes, self.dtype, name="layer5")(x)

    @nn.nowrap
    def onnx(self, graph: Graph, images: str) -> str:
        """The network as ONNX operations: images (B, 3, H, W) → logits (B, C, h, w)."""
        x = onnx_layers.conv(graph, graph.lowered(images), "conv1", norm="bn1", stride=2)
        x = onnx_layers.max_pool_ceil(graph, onnx_layers.relu(graph, x))
        layout = zip(self.blocks, _STRIDES, _DILATIONS, strict=True)
        for i, (blocks, stride, dilation) in enumerate(layout, start=1):
            for block in range(blocks):
                x = bottleneck_onnx(
                    graph,
                    x,
                    f"layer{i}/{block}",
                    stride=stride if block == 0 else 1,
                    dilation=dilation,
                    project=block == 0,
                )
        return atrous_head_onnx(graph, x, "layer5")

    def _stem(self, images, use_running, conv, norm):
        """The layers before the first stage; a method of its own for `remat`."""
        conv1 = conv(self.stem, 7, stride=2, name="conv1")
        x = conv_norm(conv1, norm(self.stem, name="bn1"), images, use_running)
        return max_pool_ceil(relu(x))


class DeepLabV2VGG(nn.Module):
    """DeepLabv2 on VGG-16-BN: no pools after conv4 and conv5, conv5 dilated, fc6 and fc7 3×3."""

    num_classes: int = 19
    dtype: Any = jnp.float32
    axis_name: str | None = None
    frozen_norm: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """(B, H, W, 3) → logits (B, ⌊H/8⌋, ⌊W/8⌋, C) float32."""
        del dropout_keys  # this network has no dropout
        x = VGGFeatures(
            plan=_VGG,
            dtype=self.dtype,
            axis_name=self.axis_name,
            remat=self.remat,
            name="features",
        )(images, self.frozen_norm or not train)
        return AtrousHead(self.num_classes, self.dtype, name="classifier")(x)

    @nn.nowrap
    def onnx(self, graph: Graph, images: str) -> str:
        """The network as ONNX operations: images (B, 3, H, W) → logits (B, C, h, w)."""
        x = vgg_onnx(graph, graph.lowered(images), "features", _VGG)
        return atrous_head_onnx(graph, x, "classifier")
