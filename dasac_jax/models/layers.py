"""Layers that compute what PyTorch's do: convolution, batch norm, pooling, upsampling.

Parameters have flax's names (kernel, scale, bias; mean, var), modules those of PyTorch's networks,
so that a path in the parameter tree reads like a key of their state_dict.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dasac_jax.models import anew, dilated, products, winograd
from dasac_jax.models.platform import platform

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # weight of the new batch, as PyTorch defines it

normal_001 = nn.initializers.normal(0.01)
# PyTorch's default for weights: Kaiming uniform with a = √5, that is U(±1/√fan_in).
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_fan_in(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for biases: U(±1/√fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def parameter(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array:
    """The parameter `name` of a module, drawn by `init` when the module is initialised.

    Whenever a module is applied, `module.param` traces the initialiser to compare shapes. In large
    networks that takes seconds, so it is given one there that is traced quickly: zeros.
    """
    return module.param(name, init if module.is_initializing() else nn.initializers.zeros, shape)


class Conv(nn.Module):
    """2-D convolution, (B, H, W, in) → (B, H', W', features); padded by `padding` on all sides."""

    features: int
    size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None  # None: what keeps the size, `dilation` for 3×3, 0 for 1×1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = normal_001
    bias_init: Callable[..., jax.Array] | None = None  # None: PyTorch's default

    def __call__(
        self,
        x: jax.Array,
        affine: tuple[jax.Array, jax.Array] | None = None,
        after: jax.Array | None = None,
    ) -> jax.Array:
        """The convolution y; with `affine` = (factor, shift), (features,) each, factor · y + shift.

        Factor and shift become part of kernel and bias, so that they cost nothing. On a CPU it is
        not computed before `after` (…) is known.
        """
        kernel, bias = self.weights(x.shape[-1])
        if affine is not None:
            factor, shift = affine
            kernel = kernel * factor
            bias = shift if bias is None else bias * factor + shift
        if after is not None and platform() == "cpu":
            kernel = anew.after(lax.stop_gradient(after), kernel)
        y = self._convolved(x.astype(self.dtype), kernel.astype(self.dtype))
        if bias is None:
            return y
        if self.size == 1 and platform() == "cpu":
            # In the shape of the product: XLA then writes this, and the residual sum, over it.
            return (y.reshape(-1, self.features) + bias.astype(self.dtype)).reshape(y.shape)
        return y + bias.astype(self.dtype)

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Kernel (k, k, channels, features) and bias (features,), or None without bias; float32."""
        k = self.size
        kernel = parameter(self, "kernel", self.kernel_init, (k, k, channels, self.features))
        if not self.use_bias:
            return kernel, None
        bias_init = self.bias_init or uniform_fan_in(k * k * channels)
        return kernel, parameter(self, "bias", bias_init, (self.features,))

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution without bias, computed in the way that is fastest for its shapes."""
        k = self.size
        padding = self.dilation * (k // 2) if self.padding is None else self.padding
        if k == 1:
            # XLA's gradient of a 1×1 convolution is slow on CPU.
            return products.pointwise(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        if k == 7 and self.stride == 1:
            # FCN's widest layer sees few pixels; as a convolution it takes 2 to 12 times as long
            # on CPU.
            around = products.neighbourhoods(x, k, padding)
            return products.pointwise(around, kernel.reshape(-1, self.features))
        if self._by_minimal_filtering(x, padding):
            return winograd.conv(x, kernel, self.dilation)
        if self._dilated_on_gpu(padding):
            return dilated.conv(x, kernel, self.dilation)
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(padding, padding)] * 2,
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def _is_3x3_of_same_size(self, padding: int) -> bool:
        """Whether the kernel is 3×3 and results have the height and width of the inputs."""
        return (self.size, self.stride, padding) == (3, 1, self.dilation)

    def _by_minimal_filtering(self, x: jax.Array, padding: int) -> bool:
        # Only on a CPU in float32: a GPU's library has its own minimal filtering, and the rounding
        # of bfloat16 is too coarse for it.
        return (
            platform() == "cpu"
            and self.dtype == jnp.float32
            and self._is_3x3_of_same_size(padding)
            and winograd.pays(x.shape, self.features, self.dilation)
        )

    def _dilated_on_gpu(self, padding: int) -> bool:
        return platform() == "gpu" and self._is_3x3_of_same_size(padding) and self.dilation > 1


class BatchNorm(nn.Module):
    """Batch norm as PyTorch computes it, its statistics in float32 whatever the compute dtype.

    A call normalises with mean and biased variance of the batch over all devices of `axis_name`.
    It moves the running statistics a tenth of the way to the batch's mean and unbiased variance.
    """

    features: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        shape = (self.features,)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, features), normalised with the statistics of the batch."""
        x = x.astype(jnp.float32)
        # Initialisation runs outside pmap, where the axis does not exist.
        axis = None if self.is_initializing() else self.axis_name
        mean, var, count = batch_moments(x, axis)
        if not self.is_initializing():
            unbiased = var * (count / (count - 1))
            self.mean.value += BN_MOMENTUM * (lax.stop_gradient(mean) - self.mean.value)
            self.var.value += BN_MOMENTUM * (lax.stop_gradient(unbiased) - self.var.value)
        y = (x - mean) * (lax.rsqrt(var + BN_EPSILON) * self.scale) + self.bias
        return y.astype(self.dtype)

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """(factor, shift), (features,) each, of normalising with the running statistics."""
        factor = lax.rsqrt(self.var.value + BN_EPSILON) * self.scale
        return factor, self.bias - self.mean.value * factor


def conv_norm(
    conv: Conv, norm: BatchNorm, x: jax.Array, use_running: bool, after: jax.Array | None = None
) -> jax.Array:
    """A convolution and its batch norm: (B, H, W, C) → (B, H', W', features). `after`: see `Conv`.

    With running statistics the norm is a factor and a shift, which the convolution takes along in
    its dtype. Results between the two are then neither written nor kept for the gradient.
    """
    return conv(x, norm.affine(), after) if use_running else norm(conv(x, after=after))


def batch_moments(
    x: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean (C,), biased variance (C,) and number of pixels of (B, H, W, C), over all devices.

    axis_name: that of the devices in `jax.pmap`; None: this device's pixels alone.
    """
    count = jnp.float32(x.shape[0] * x.shape[1] * x.shape[2])
    mean = x.mean((0, 1, 2))
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count = lax.psum(count, axis_name)
    var = jnp.square(x - mean).mean((0, 1, 2))
    return mean, var if axis_name is None else lax.pmean(var, axis_name), count


def _larger(x: jax.Array, y: jax.Array) -> jax.Array:
    """The larger of x (…) and y (…), x where they are equal; NaN where either is.

    The gradient of `jnp.maximum` goes to whichever operand equals the result. XLA may compute an
    operand anew for that comparison, in a program that rounds it in another way: then neither is
    equal, and the gradient is lost. Here one of the two always gets it.
    """
    return jnp.where((x >= y) | jnp.isnan(x), x, y)


def max_pool_ceil(x: jax.Array) -> jax.Array:
    """3×3/2 max pool padded by 1, ceil rounding: (B, H, W, C) → (B, ⌊H/2⌋+1, ⌊W/2⌋+1, C).

    Computed along each axis as a maximum of shifted inputs: on CPU the gradient of XLA's own pool
    takes four times as long. Of equal entries one gets the gradient, as in PyTorch.
    """
    for axis in (1, 2):
        count = x.shape[axis] // 2 + 1
        padding = [(0, 0)] * 4
        padding[axis] = (1, 2)
        x = jnp.pad(x, padding, constant_values=-jnp.inf)
        rows = (lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3))
        x = functools.reduce(_larger, rows)
    return x


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2×2/2 max pool rounded down: (B, H, W, C) → (B, ⌊H/2⌋, ⌊W/2⌋, C).

    Computed as maxima of every second row and column: XLA's own pool behind convolutions gives NaN
    on CPUs in bfloat16 with JAX 0.12. Of equal entries one gets the gradient, as in PyTorch.
    """
    height, width = (n - n % 2 for n in x.shape[1:3])
    x = x[:, :height, :width]
    rows = _larger(x[:, ::2], x[:, 1::2])
    return _larger(rows[:, :, ::2], rows[:, :, 1::2])


def channel_dropout(x: jax.Array, keys: jax.Array | None, layer: int, rate: float) -> jax.Array:
    """Dropout of whole channels of (B, H, W, C), the others scaled by 1/(1 - rate).

    keys: one for each image, (B,), so that the draw does not depend on how the batch is spread over
    devices; None: no dropout. layer: a number that differs between the network's dropouts.
    """
    if keys is None:
        return x
    keep = jax.vmap(
        lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[-1:])
    )(keys)
    return jnp.where(keep[:, None, None, :], x / (1 - rate), 0).astype(x.dtype)


def corner_aligned_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Weights of linear interpolation with aligned corners: (size_out, size_in) float32."""
    step = np.float32(size_in - 1) / np.float32(max(size_out - 1, 1))
    # Positions in float32, as PyTorch computes them.
    position = np.arange(size_out, dtype=np.float32) * step
    low = np.minimum(position.astype(np.int32), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    weight = position - low.astype(np.float32)
    matrix = np.zeros((size_out, size_in), np.float32)
    np.add.at(matrix, (np.arange(size_out), low), np.float32(1) - weight)
    np.add.at(matrix, (np.arange(size_out), high), weight)
    return matrix


def upsample(logits: jax.Array, size: tuple[int, int], *, align_corners: bool = True) -> jax.Array:
    """Bilinear: (B, h, w, C) → (B, H, W, C) float32. What `align_corners` means is PyTorch's.

    Two matrix products: their gradients are matrix products too, while that of a gather is a slow
    scatter. Rows come first, since the result between the two is then the smaller one.
    """
    x = logits.astype(jnp.float32)
    if not align_corners:
        shape = (len(x), *size, x.shape[-1])
        return jax.image.resize(x, shape, "linear", antialias=False)
    rows = corner_aligned_matrix(logits.shape[1], size[0])
    columns = corner_aligned_matrix(logits.shape[2], size[1])
    x = jnp.einsum("Hh,bhwc->bHwc", rows, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("Ww,bHwc->bHWc", columns, x, precision=lax.Precision.HIGHEST)
