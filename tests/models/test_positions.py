"""Position embeddings on another grid: PyTorch's bicubic interpolation."""

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models.positions import bicubic_matrix, resized_positions


def test_halfway_weights_are_pytorchs():
    # Of the cubic with a = -0.75, at half a pixel from two of them; a = -0.5 would give -0.0625.
    np.testing.assert_array_equal(
        bicubic_matrix(8, 4)[1, 1:5], [-0.09375, 0.59375, 0.59375, -0.09375]
    )


@pytest.mark.parametrize("sizes", [(37, 4), (37, 80), (37, 36), (5, 9), (37, 1)])
def test_weights_of_a_row_sum_to_one(sizes):
    matrix = bicubic_matrix(*sizes)
    assert matrix.shape == sizes[::-1]
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


def test_the_same_grid_is_untouched_and_another_shape_is_not():
    grid = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6, 2)), jnp.float32)
    assert resized_positions(grid, (6, 6)) is grid
    # As many patches as positions, but not where the positions are.
    other = resized_positions(grid, (4, 9))
    assert other.shape == (4, 9, 2)
    assert not np.allclose(other.reshape(-1, 2), grid.reshape(-1, 2))


@pytest.mark.torch
@pytest.mark.parametrize("size", [(4, 6), (40, 80), (36, 38), (1, 3)])
def test_interpolation_is_pytorchs(torch, size):
    grid = np.random.default_rng(1).normal(size=(37, 37, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(grid.transpose(2, 0, 1))[None], size=size, mode="bicubic", align_corners=False
    )[0].permute(1, 2, 0)
    # Positions are rounded to float32, there perhaps with fused operations.
    np.testing.assert_allclose(resized_positions(grid, size), theirs, atol=1e-5)
