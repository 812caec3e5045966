"""Dilated convolutions for GPUs: the same results, plain gradients, and where they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import dilated
from dasac_jax.models.layers import Conv


# Sizes that the dilation divides, does not divide, and exceeds.
@pytest.mark.parametrize(
    ("height", "width", "dilation"), [(8, 12, 2), (13, 25, 2), (9, 17, 4), (3, 5, 4)]
)
def test_results_and_gradients_are_the_convolutions(height, width, dilation, direct):
    random = np.random.default_rng(0)
    x, kernel, upstream = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((2, height, width, 24), (3, 3, 24, 8), (2, height, width, 8))
    )

    def both(way):
        y, pull_back = jax.vjp(lambda x, k: way(x, k, dilation), x, kernel)
        return y, *pull_back(upstream)

    for ours, expected in zip(both(dilated.conv), both(direct), strict=True):
        assert ours.shape == expected.shape
        assert np.linalg.norm(ours - expected) < 1e-6 * np.linalg.norm(expected)


def dilations(conv, shape):
    """Of images and kernels, of all convolutions in the layer's gradient."""
    x = jnp.zeros(shape, conv.dtype)
    variables = jax.eval_shape(lambda: conv.init(jax.random.key(0), x))
    gradient = jax.grad(lambda variables, x: conv.apply(variables, x).sum(), argnums=(0, 1))
    equations = jax.make_jaxpr(gradient)(variables, x).eqns
    nested = [e.params["call_jaxpr"].eqns for e in equations if "call_jaxpr" in e.params]
    found = [e for part in (equations, *nested) for e in part]
    return [
        (max(e.params["window_strides"]), max(e.params["rhs_dilation"]))
        for e in found
        if e.primitive.name == "conv_general_dilated"
    ]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_where_it_is_taken(monkeypatch, dtype):
    shape = (2, 9, 17, 24)
    # Strides and dilations forward, of the kernel's gradient and of the input's: the kernel's
    # gradient is itself a convolution with the stride that forward has as its dilation.
    native = [(1, 2), (2, 1), (1, 2)]
    plain = [(1, 2), (1, 2), (1, 1)]
    layer = Conv(24, dilation=2, dtype=dtype)
    assert sorted(dilations(layer, shape)) == sorted(native)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sorted(dilations(layer, shape)) == sorted(plain)
    unpadded = Conv(24, dilation=2, padding=0, dtype=dtype)
    assert (2, 1) in dilations(unpadded, shape)
    assert set(dilations(Conv(24, dtype=dtype), shape)) == {(1, 1)}
