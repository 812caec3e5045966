"""Dilated 3×3 convolutions with a gradient that XLA hands to cuDNN's own functions.

XLA calls cuDNN's function for the gradient with respect to a kernel only for convolutions without
dilation. For a dilated one it makes a forward convolution with a filter as large as the image,
which is slow. The mend: a convolution dilated by d treats d × d interleaved grids of pixels alike
and apart. With each grid as an image of its own, the kernel's gradient is that of a convolution
without dilation, over d × d times as many images.
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
    """The interleaved grids as images: (B, H, W, C) → (B · d², ⌈H/d⌉, ⌈W/d⌉, C).

    A grid is every dth pixel of every dth row. Where d does not divide H or W, zeros fill it up.
    """
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % d), (0, -x.shape[2] % d), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // d, d, width // d, d, channels).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, height // d, width // d, channels)
