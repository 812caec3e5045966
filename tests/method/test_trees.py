"""Sums of squares of whole pytrees, and the choice between two."""

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import trees


class TestSquareNorms:
    def test_of_each_leaf(self):
        tree = {"a": jnp.array([3.0, 4.0]), "b": jnp.full((2, 2), 2.0), "c": jnp.array([1.0])}
        np.testing.assert_allclose(np.sort(trees.square_norms(tree)), [1, 16, 25])

    @pytest.mark.parametrize("shape", [(4,), (2, 2)])
    def test_only_one_kind(self, shape):
        np.testing.assert_allclose(trees.square_norms([jnp.ones(shape)]), [4])

    def test_a_number_that_is_not_finite_shows(self):
        tree = {"a": jnp.array([3.0, jnp.nan]), "b": jnp.array([jnp.inf]), "c": jnp.ones(3)}
        assert np.isfinite(trees.square_norms(tree)).sum() == 1


@pytest.mark.parametrize(
    ("value", "finite"),
    [(1.0, True), (-3e18, True), (np.nan, False), (-np.inf, False), (1e20, False)],
)
def test_a_number_whose_square_is_not_finite_counts_as_such(value, finite):
    tree = {"a": jnp.ones((3, 2)), "b": [jnp.array([0.0, value])]}
    assert bool(trees.is_finite(jnp.float32(1), tree)) == finite


def test_select_keeps_every_bit():
    new, old = {"a": jnp.array([-0.0, 1e-45])}, {"a": jnp.array([np.nan, 2.0])}
    for condition, expected in ((True, new), (False, old)):
        chosen = trees.select(jnp.array(condition), new, old)["a"]
        assert np.asarray(chosen).tobytes() == np.asarray(expected["a"]).tobytes()
