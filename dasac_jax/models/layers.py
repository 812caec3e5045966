"""Layers that compute what PyTorch's do: convolution, batch norm, pooling, upsampling.

Parameters are named as flax names them (kernel, scale, bias; mean, var); module names are
PyTorch's, so that a path in the parameter tree reads like a state_dict key.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dasac_jax.models import dilated, winograd

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # weight of the new batch, PyTorch's convention

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
    """`module.param`, which traces `init` whenever the module is applied, to compare shapes.

    Of large networks that takes seconds, unless what is traced is as plain as zeros.
    """
    return module.param(name, init if module.is_initializing() else nn.initializers.zeros, shape)


class Conv(nn.Module):
    """2-D convolution, (B, H, W, in) → (B, H', W', features); padded by `padding` on all sides."""

    features: int
    size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None  # None: as PyTorch's networks do it, `dilation` for 3×3, 0 for 1×1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = normal_001
    bias_init: Callable[..., jax.Array] | None = None  # None: PyTorch's default

    @nn.compact
    def __call__(
        self, x: jax.Array, affine: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        """The convolution; of `affine` = (factor, shift), (features,) each, factor · it + shift."""
        k, channels = self.size, x.shape[-1]
        kernel = parameter(self, "kernel", self.kernel_init, (k, k, channels, self.features))
        if affine is not None:
            kernel = kernel * affine[0]
        padding = self.dilation * (k // 2) if self.padding is None else self.padding
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if k == 1:
            # As a matrix product: XLA's gradient of a 1×1 convolution is slow on CPU.
            y = _product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        elif k == 7 and self.stride == 1:
            # FCN's widest layer sees few pixels; as a convolution it takes 2 to 12 times as long
            # on CPU.
            y = _product(_neighbourhoods(x, k, padding), kernel.reshape(-1, self.features))
        elif k == 3 and self.stride == 1 and 9 * self.features <= channels:
            # The atrous heads: few outputs of many inputs.
            y = _shifted_products(x, kernel, self.dilation, padding)
        elif self._by_minimal_filtering(x, padding):
            y = winograd.conv(x, kernel, self.dilation)
        elif self._dilated_on_gpu(padding):
            y = dilated.conv(x, kernel, self.dilation)
        else:
            y = lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=[(padding, padding)] * 2,
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        bias = None if affine is None else affine[1]
        if self.use_bias:
            bias_init = self.bias_init or uniform_fan_in(k * k * channels)
            own = parameter(self, "bias", bias_init, (self.features,))
            bias = own if affine is None else own * affine[0] + bias
        return y if bias is None else y + bias.astype(self.dtype)

    def _same(self, padding: int) -> bool:
        """Whether it is 3×3 and its results are as many as its inputs."""
        return (self.size, self.stride, padding) == (3, 1, self.dilation)

    def _by_minimal_filtering(self, x: jax.Array, padding: int) -> bool:
        # A CPU in float32: GPUs' libraries choose by themselves, bfloat16 rounds too coarsely.
        return (
            jax.default_backend() == "cpu"
            and self.dtype == jnp.float32
            and self._same(padding)
            and winograd.pays(x.shape, self.features, self.dilation)
        )

    def _dilated_on_gpu(self, padding: int) -> bool:
        return jax.default_backend() == "gpu" and self._same(padding) and self.dilation > 1


def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """(B, H, W, C) @ (C, D), all pixels along one axis: over three XLA's gradient transposes x."""
    y = x.reshape(-1, x.shape[-1]) @ matrix
    return y.reshape(*x.shape[:-1], -1)


def _neighbourhoods(x: jax.Array, k: int, padding: int) -> jax.Array:
    """The k × k pixels around each, in a kernel's order: (B, H, W, C) → (B, H', W', k · k · C)."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    return jnp.concatenate(shifted, axis=-1)


def _shifted_products(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    """A convolution as one matrix product of all taps, whose results are shifted and added.

    (B, H, W, C), (k, k, C, D) → (B, H', W', D). As a convolution, a wide dilation takes 2 to 15
    times as long on CPU, forward and for the kernel's gradient. Taps that see only padding are
    left out: of dilation 24 on 17 rows three are left of nine.
    """
    k, _, channels, features = kernel.shape
    height, width = (n + 2 * padding - dilation * (k - 1) for n in x.shape[1:3])
    shifts = [(i * dilation - padding, j * dilation - padding) for i in range(k) for j in range(k)]
    taps = kernel.reshape(k * k, channels, features)
    seen = [
        n
        for n, (down, across) in enumerate(shifts)
        if -height < down < x.shape[1] and -width < across < x.shape[2]
    ]
    products = _product(x, jnp.moveaxis(taps[np.array(seen)], 0, 1).reshape(channels, -1))
    total = 0.0
    for n, tap in enumerate(seen):
        down, across = shifts[tap]
        product = products[..., n * features : (n + 1) * features].astype(jnp.float32)
        total += _moved(_moved(product, 1, down, height), 2, across, width)
    return total.astype(x.dtype)


def _moved(x: jax.Array, axis: int, shift: int, length: int) -> jax.Array:
    """`length` entries of an axis from `shift` on; 0 where there are none."""
    size = x.shape[axis]
    x = lax.slice_in_dim(x, max(shift, 0), min(shift + length, size), axis=axis)
    before = max(-shift, 0)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, length - before - x.shape[axis])
    return jnp.pad(x, padding)


class BatchNorm(nn.Module):
    """Batch norm as PyTorch computes it, its statistics in float32 whatever the compute dtype.

    Called, it normalises with the biased variance of the batch over all devices of `axis_name`
    and moves the running statistics by a tenth, the variance with its unbiased estimate.
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
        """(B, H, W, features), normalised with the batch's own statistics."""
        x = x.astype(jnp.float32)
        # init runs outside pmap, where the axis does not exist.
        axis = None if self.is_initializing() else self.axis_name
        mean, var, count = batch_moments(x, axis)
        if not self.is_initializing():
            unbiased = var * (count / (count - 1))
            self.mean.value += BN_MOMENTUM * (lax.stop_gradient(mean) - self.mean.value)
            self.var.value += BN_MOMENTUM * (lax.stop_gradient(unbiased) - self.var.value)
        y = (x - mean) * (lax.rsqrt(var + BN_EPSILON) * self.scale) + self.bias
        return y.astype(self.dtype)

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """Factor and shift (features,) that normalise with the running statistics."""
        factor = lax.rsqrt(self.var.value + BN_EPSILON) * self.scale
        return factor, self.bias - self.mean.value * factor


def conv_norm(conv: Conv, norm: BatchNorm, x: jax.Array, use_running: bool) -> jax.Array:
    """A convolution and its batch norm: (B, H, W, C) → (B, H', W', features).

    With running statistics the norm only multiplies and adds, and the convolution does so, in its
    dtype: its own results are then neither written nor kept for the gradient.
    """
    return conv(x, norm.affine()) if use_running else norm(conv(x))


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), of which only the result is kept for the gradient.

    The next layer keeps it too, while x is then needed by nobody: a GPU's library can take the
    ReLU together with the convolution before it.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, upstream):
    # Not y > 0, which XLA turns into x > 0.
    return (jnp.where(y != 0, upstream, 0),)


relu.defvjp(_relu_forward, _relu_backward)


def batch_moments(
    x: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance per channel of (B, H, W, C) over all devices, and the count."""
    count = jnp.float32(x.shape[0] * x.shape[1] * x.shape[2])
    mean = x.mean((0, 1, 2))
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count = lax.psum(count, axis_name)
    var = jnp.square(x - mean).mean((0, 1, 2))
    return mean, var if axis_name is None else lax.pmean(var, axis_name), count


def max_pool_ceil(x: jax.Array) -> jax.Array:
    """3×3/2 max pool padded by 1, ceil rounding: (B, H, W, C) → (B, ⌊H/2⌋+1, ⌊W/2⌋+1, C).

    Axis by axis, by comparison: on CPU the gradient of XLA's own pool takes four times as long.
    Where entries tie, the gradient is shared out; behind a ReLU that is where it ends anyway.
    """
    for axis in (1, 2):
        count = x.shape[axis] // 2 + 1
        padding = [(0, 0)] * 4
        padding[axis] = (1, 2)
        x = jnp.pad(x, padding, constant_values=-jnp.inf)
        rows = (lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3))
        x = functools.reduce(jnp.maximum, rows)
    return x


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2×2/2 max pool rounded down: (B, H, W, C) → (B, ⌊H/2⌋, ⌊W/2⌋, C)."""
    return nn.max_pool(x, (2, 2), (2, 2))


def materialised(x: jax.Array) -> jax.Array:
    """x (…), on CPU computed once and kept for all who read it, and so its gradient.

    There XLA fuses sums into their readers: in a chain of residual blocks each would compute all
    sums before it anew. An optimization barrier goes before it fuses; a division is an operation
    that it does not repeat. It is by 1, but for NaN, and so exact. By a scalar it would become a
    product, which is repeated. On GPUs it would keep the sum out of their library's products.
    """
    if jax.default_backend() != "cpu":
        return x
    one = jnp.where(jnp.isnan(x), 2, 1).astype(x.dtype)
    return x / lax.stop_gradient(one)


def channel_dropout(x: jax.Array, keys: jax.Array | None, layer: int, rate: float) -> jax.Array:
    """Zero whole channels of (B, H, W, C), each image by its own key; no keys, no dropout.

    A key per image (B,), and not one for the batch, keeps the draw independent of how the batch
    is spread over devices.
    """
    if keys is None:
        return x
    keep = jax.vmap(
        lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[-1:])
    )(keys)
    return jnp.where(keep[:, None, None, :], x / (1 - rate), 0).astype(x.dtype)


def corner_aligned_matrix(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in) float32 weights of linear interpolation with aligned corners."""
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


def upsample(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear, aligned corners: (B, h, w, C) → (B, H, W, C) float32.

    Two matrix products, since their gradients are matrix products too, where a gather's is a
    scatter. Rows first: that intermediate is the smaller one.
    """
    rows = corner_aligned_matrix(logits.shape[1], size[0])
    columns = corner_aligned_matrix(logits.shape[2], size[1])
    x = logits.astype(jnp.float32)
    x = jnp.einsum("Hh,bhwc->bHwc", rows, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("Ww,bHwc->bHWc", columns, x, precision=lax.Precision.HIGHEST)
