"""VGG-16-BN features as torchvision numbers them: convolution, batch norm and ReLU, or a pool."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.models import onnx_layers
from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    conv_norm,
    max_pool_2x2,
    torch_default,
)
from dasac_jax.models.onnx_graph import Graph
from dasac_jax.models.relu import relu

torchvision_vgg = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Layer(NamedTuple):
    """A convolution of VGG; its index in torchvision's `features`, whether a pool is behind it."""

    index: int
    features: int
    dilation: int
    norm: bool
    pool: bool


def layers_of(plan: str, start: int = 0) -> Iterator[Layer]:
    """The layers of a plan, as `VGGFeatures` describes it."""
    index = start
    for word in plan.replace(" P", "P").split():
        kind, pool = word.strip("0123456789P"), word.endswith("P")
        dilation = {"": 1, "D": 2, "F": 4}[kind]
        yield Layer(index, int(word.strip("DFP")), dilation, norm=kind != "F", pool=pool)
        index += (2 if kind == "F" else 3) + pool


class VGGFeatures(nn.Module):
    """A sequence of VGG layers, each named by its index in torchvision's `features`.

    `plan` is read left to right: a number is a convolution of that many channels with batch norm
    and ReLU, `D512` the same dilated by 2, `F1024` a convolution dilated by 4 with ReLU only (fc6
    and fc7 of DeepLab), `P` a 2×2 max pool. `start` is the index of the first layer. With `remat`
    only the layers' inputs are kept for the gradient; a pool is part of the layer before it.
    """

    plan: str
    start: int = 0
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, use_running: bool) -> jax.Array:
        run = VGGFeatures._layer
        run = nn.remat(run, static_argnums=(2, 3)) if self.remat else run
        for layer in layers_of(self.plan, self.start):
            x = run(self, x, use_running, layer)
        return x

    def _layer(self, x, use_running, layer):
        """One layer of the plan, with the pool behind it if there is one."""
        conv = Conv(
            layer.features,
            dilation=layer.dilation,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=torchvision_vgg if layer.norm else torch_default,
            bias_init=nn.initializers.zeros if layer.norm else None,
            name=str(layer.index),
        )
        if layer.norm:
            place = str(layer.index + 1)
            norm = BatchNorm(layer.features, self.axis_name, self.dtype, name=place)
            x = conv_norm(conv, norm, x, use_running)
        else:
            x = conv(x)
        x = relu(x)
        return max_pool_2x2(x) if layer.pool else x


def vgg_onnx(graph: Graph, x: str, path: str, plan: str, start: int = 0) -> str:
    """`VGGFeatures` at a path as ONNX operations."""
    for layer in layers_of(plan, start):
        norm = f"{path}/{layer.index + 1}" if layer.norm else None
        place = f"{path}/{layer.index}"
        x = onnx_layers.conv(graph, x, place, norm=norm, dilation=layer.dilation)
        x = onnx_layers.relu(graph, x)
        x = onnx_layers.max_pool_2x2(graph, x) if layer.pool else x
    return x
