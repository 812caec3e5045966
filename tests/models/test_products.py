"""Convolutions of few outputs as one product: the same results and gradients, and one product."""

import jax
import numpy as np
import pytest

from dasac_jax.models import products
from dasac_jax.models.deeplabv2 import ATROUS_RATES, AtrousHead


# Dilations that see all of the image, some of it, and padding alone.
@pytest.mark.parametrize("dilations", [(1, 2), (6, 12, 18, 24)])
@pytest.mark.parametrize("size", [(2, 3), (9, 17)])
def test_results_and_gradients_are_the_convolutions(size, dilations, direct):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *size, 24)).astype(np.float32)
    kernels = [np.float32(0.01 * random.normal(size=(3, 3, 24, 2))) for _ in dilations]
    upstream = [random.normal(size=(2, *size, 2)).astype(np.float32) for _ in dilations]

    @jax.jit
    def both(kernels, x):
        def one_by_one(kernels, x):
            return [direct(x, kernel, d) for kernel, d in zip(kernels, dilations, strict=True)]

        ours, pull_back = jax.vjp(lambda k, x: products.shifted(x, k, dilations), kernels, x)
        theirs, their_pull_back = jax.vjp(one_by_one, kernels, x)
        return (ours, pull_back(upstream)), (theirs, their_pull_back(upstream))

    ours, theirs = both(kernels, x)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) < 1e-6 * np.linalg.norm(b)


def test_the_atrous_head_is_one_product_where_that_pays():
    def head_of(channels):
        x = jax.ShapeDtypeStruct((2, 9, 17, channels), np.float32)
        head = AtrousHead(num_classes=2)
        variables = jax.eval_shape(head.init, jax.random.key(0), x)
        program = str(jax.make_jaxpr(head.apply)(variables, x))
        return program.count("dot_general["), program.count("conv_general_dilated[")

    assert head_of(24) == (1, 0)
    assert head_of(16) == (0, len(ATROUS_RATES))
