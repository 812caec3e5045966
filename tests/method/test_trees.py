"""Functions of pytrees that take all vectors at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import trees


def _tree(seed=0):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(random.standard_normal(shape, np.float32))

    return {
        "conv": {"kernel": draw(3, 3, 4, 5), "bias": draw(5)},
        "norm": {"scale": draw(7), "bias": draw(7)},
        "step": jnp.int32(seed),
    }


class TestMapNumbers:
    @pytest.mark.parametrize("compiled", [False, True])
    def test_is_a_map_over_leaves(self, compiled):
        def mapped(ours, theirs):
            return trees.map_numbers(lambda a, b: a - 2 * b, ours, theirs)

        found = (jax.jit(mapped) if compiled else mapped)(_tree(0), _tree(1))
        expected = jax.tree.map(lambda a, b: a - 2 * b, _tree(0), _tree(1))
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-6)

    def test_keeps_every_bit(self):
        odd = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, 1e-45, 3.4e38], jnp.float32)
        found = jax.jit(lambda tree: trees.map_numbers(lambda a: a, tree))({"a": odd, "b": odd})
        for leaf in found.values():
            np.testing.assert_array_equal(leaf, odd)
            np.testing.assert_array_equal(np.signbit(leaf)[:4], [False, True, False, True])

    def test_without_vectors(self):
        assert trees.map_numbers(lambda a: a + 1, {"a": jnp.zeros((2, 2))})["a"].sum() == 4

    def test_whole_numbers_stay_what_they_are(self):
        found = trees.map_numbers(lambda a: a + 1, [jnp.arange(3), jnp.zeros(2)])
        assert found[0].dtype == jnp.arange(3).dtype
        np.testing.assert_array_equal(found[0], [1, 2, 3])

    def test_trees_have_to_be_alike(self):
        with pytest.raises(ValueError, match="zip"):
            trees.map_numbers(jnp.add, {"a": jnp.zeros(2)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)})


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
