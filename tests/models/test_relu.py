"""The ReLU, alone and computed once, and what it keeps for the gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models.relu import relu, relu_once


@pytest.mark.parametrize("relu", [relu, relu_once])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients(relu, dtype):
    x = jnp.array([-2, -0.0, 0, 1e-30, 0.5, 3, jnp.inf, -jnp.inf], dtype)
    y, pull_back = jax.vjp(relu, x)
    expected, pull_back_theirs = jax.vjp(nn.relu, x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    upstream = jnp.arange(1, 9, dtype=dtype)
    np.testing.assert_array_equal(pull_back(upstream)[0], pull_back_theirs(upstream)[0])


@pytest.mark.parametrize("relu", [relu, relu_once])
def test_only_the_result_is_kept(relu):
    x = jnp.linspace(-1, 1, 9)
    y, pull_back = jax.vjp(relu, x)
    (kept,) = jax.tree.leaves(pull_back)
    np.testing.assert_array_equal(kept, y)


def test_xla_does_not_ask_what_went_in():
    gradient = jax.jit(jax.grad(lambda x: jnp.square(relu(x @ x)).sum()))
    program = gradient.lower(jnp.ones((16, 16))).compile().as_text()
    assert "direction=NE" in program and "direction=GT" not in program
