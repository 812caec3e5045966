"""VGG-16-BN features as torchvision numbers them: convolution, batch norm and ReLU, or a pool."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    conv_norm,
    max_pool_2x2,
    relu,
    torch_default,
)

torchvision_vgg = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


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
        run = nn.remat(run, static_argnums=(2, 3, 4)) if self.remat else run
        index = self.start
        for layer in self.plan.replace(" P", "P").split():
            x = run(self, x, use_running, layer, index)
            index += (2 if layer[0] == "F" else 3) + layer.endswith("P")
        return x

    def _layer(self, x, use_running, layer, index):
        """One layer of the plan, with the pool behind it if there is one."""
        kind, features = layer.strip("0123456789P"), int(layer.strip("DFP"))
        new = kind == "F"
        conv = Conv(
            features,
            dilation={"": 1, "D": 2, "F": 4}[kind],
            use_bias=True,
            dtype=self.dtype,
            kernel_init=torch_default if new else torchvision_vgg,
            bias_init=None if new else nn.initializers.zeros,
            name=str(index),
        )
        if new:
            x = conv(x)
        else:
            norm = BatchNorm(features, self.axis_name, self.dtype, name=str(index + 1))
            x = conv_norm(conv, norm, x, use_running)
        x = relu(x)
        return max_pool_2x2(x) if layer.endswith("P") else x
