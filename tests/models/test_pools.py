"""Max pools: whose gradient it is where entries are equal, and what NaN becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models.layers import max_pool_2x2, max_pool_ceil


@pytest.mark.parametrize("pool", [max_pool_2x2, max_pool_ceil])
def test_equal_entries_pass_the_whole_gradient_on_once(pool):
    gradient = jax.grad(lambda x: pool(x).sum())(jnp.ones((1, 8, 8, 2)))
    assert set(np.unique(gradient)) <= {0, 1, 2, 4}  # whole ones: a pool's windows overlap
    assert gradient.sum() == pool(jnp.ones((1, 8, 8, 2))).size


def test_the_first_of_equal_entries_gets_the_gradient():
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.ones((1, 2, 2, 1)))
    assert gradient[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("pool", [max_pool_2x2, max_pool_ceil])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_nan_is_never_lost(pool, place):
    images = jnp.zeros((1, 2, 2, 1)).at[0, place[0], place[1], 0].set(jnp.nan)
    assert jnp.isnan(pool(images)).any()


@pytest.mark.torch
def test_gradient_is_that_of_pytorch(torch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 3, (2, 9, 12, 3)).astype(np.float32)  # many are equal
    for pool, options in (
        (max_pool_2x2, {"kernel_size": 2, "stride": 2}),
        (max_pool_ceil, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ):
        ours, backward = jax.vjp(pool, jnp.asarray(images))
        upstream = rng.normal(size=ours.shape).astype(np.float32)
        there = torch.tensor(images).permute(0, 3, 1, 2).requires_grad_()
        theirs = torch.nn.functional.max_pool2d(there, **options)
        theirs.backward(torch.tensor(upstream).permute(0, 3, 1, 2))
        expected = np.moveaxis(there.grad.numpy(), 1, -1)
        np.testing.assert_array_equal(ours, np.moveaxis(theirs.detach().numpy(), 1, -1))
        # Which of several equal entries it is may differ, but not how much a window passes on.
        np.testing.assert_allclose(backward(upstream)[0].sum(), expected.sum(), rtol=1e-5)
