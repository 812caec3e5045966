"""Dilated convolutions whose kernel's gradient a GPU's library knows.

XLA hands the gradient with respect to a kernel to cuDNN as such only for plain convolutions. A
dilated one's becomes a forward convolution with a filter as large as the image. A convolution
dilated by d is the same for each of d × d interleaved grids of pixels, so its kernel's gradient is
that of a plain convolution of d × d times as many images, each a grid.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """(B, H, W, C), (3, 3, C, D) → (B, H, W, D), padded by `dilation`."""
    return _plain(x, kernel, dilation)


def _plain(x, kernel, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=[(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _forward(x, kernel, dilation):
    return conv(x, kernel, dilation), (x, kernel)


def _backward(dilation, kept, upstream):
    x, kernel = kept
    of_input = jax.linear_transpose(lambda x: _plain(x, kernel, dilation), x)
    grids = _grids(x, dilation)
    of_kernel = jax.linear_transpose(lambda kernel: _plain(grids, kernel, 1), kernel)
    return *of_input(upstream), *of_kernel(_grids(upstream, dilation))


conv.defvjp(_forward, _backward)


def _grids(x, d):
    """Each dth pixel of each dth row, 0 over the edge: (B, H, W, C) → (B · d², ⌈H/d⌉, ⌈W/d⌉, C)."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % d), (0, -x.shape[2] % d), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // d, d, width // d, d, channels).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, height // d, width // d, channels)
