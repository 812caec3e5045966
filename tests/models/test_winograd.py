"""Convolutions by minimal filtering: the same results, and where they are taken."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import winograd
from dasac_jax.models.layers import Conv

quickly_compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# Between them they have tiles of 2, 3 and 4 results, full ones and ones that reach over the edge.
@pytest.mark.parametrize(
    ("height", "width", "dilation"), [(6, 13, 1), (13, 25, 2), (9, 17, 4), (3, 5, 4)]
)
def test_results_and_gradients_are_the_convolutions(height, width, dilation, direct):
    random = np.random.default_rng(0)
    x, kernel, upstream = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((2, height, width, 24), (3, 3, 24, 8), (2, height, width, 8))
    )

    def both(way):
        def run(x, kernel, upstream):
            y, pull_back = jax.vjp(lambda x, k: way(x, k, dilation), x, kernel)
            return y, *pull_back(upstream)

        return quickly_compiled(run)(x, kernel, upstream)

    for ours, expected in zip(both(winograd.conv), both(direct), strict=True):
        assert ours.shape == expected.shape
        error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
        assert error < 3e-6


def test_tiles_are_those_of_the_fewest_products():
    found = {
        tuple(axis.tile for axis in winograd._axes((1, height, width, 1), dilation))
        for height, width, dilation in ((6, 13, 1), (13, 25, 2), (9, 17, 4), (3, 5, 4))
    }
    assert {tile for pair in found for tile in pair} == {2, 3, 4}


def taken(shape, features=256, dtype=jnp.float32, **options):
    conv = Conv(features, dtype=dtype, **options)
    x = jax.ShapeDtypeStruct(shape, dtype)
    variables = jax.eval_shape(lambda: conv.init(jax.random.key(0), jnp.zeros(shape, dtype)))
    return "conv_general_dilated" not in str(jax.make_jaxpr(conv.apply)(variables, x))


def test_where_it_is_taken(monkeypatch):
    crop = (6, 13, 25, 256)
    assert taken(crop, dilation=2)
    assert taken((1, 65, 129, 512), 512, dilation=4)
    assert not taken(crop, dilation=2, dtype=jnp.bfloat16)  # rounds too coarsely for it
    assert not taken(crop, stride=2)
    assert not taken(crop, padding=0)
    assert not taken((6, 13, 25, 32), 32)  # too little to multiply
    assert not taken((2, 13, 25, 256), dilation=2)  # too few pixels
    assert not taken((200, 2, 3, 512), 512, dilation=4)  # more products, not fewer
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not taken(crop, dilation=2)


def test_filters_and_inputs_at_the_points_are_not_kept(monkeypatch):
    """Neither from the forward pass for the gradient, nor before their layer's turn."""

    def megabytes():
        def loss(kernels, x):
            for kernel in kernels:
                x = winograd.conv(x, kernel, 1)
            return jnp.square(x).sum()

        kernels = [jax.ShapeDtypeStruct((3, 3, 128, 128), jnp.float32)] * 6
        x = jax.ShapeDtypeStruct((2, 12, 24, 128), jnp.float32)
        program = jax.jit(jax.grad(loss)).lower(kernels, x).compile()
        return program.memory_analysis().temp_size_in_bytes / 1e6

    ours = megabytes()
    monkeypatch.setattr(winograd, "after", lambda first, x: x)
    jax.clear_caches()  # of what was traced with `after`
    assert ours < 0.6 * megabytes()
