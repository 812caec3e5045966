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


class TestMapLeaves:
    @pytest.mark.parametrize("compiled", [False, True])
    def test_is_a_map_over_leaves(self, compiled):
        def mapped(ours, theirs):
            return trees.map_leaves(lambda a, b: a - 2 * b, ours, theirs)

        found = (jax.jit(mapped) if compiled else mapped)(_tree(0), _tree(1))
        expected = jax.tree.map(lambda a, b: a - 2 * b, _tree(0), _tree(1))
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-6)

    def test_keeps_every_bit(self):
        odd = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, 1e-45, 3.4e38], jnp.float32)
        found = jax.jit(lambda tree: trees.map_leaves(lambda a: a, tree))({"a": odd, "b": odd})
        for leaf in found.values():
            np.testing.assert_array_equal(leaf, odd)
            np.testing.assert_array_equal(np.signbit(leaf)[:4], [False, True, False, True])

    def test_without_vectors(self):
        assert trees.map_leaves(lambda a: a + 1, {"a": jnp.zeros((2, 2))})["a"].sum() == 4

    def test_whole_numbers_stay_what_they_are(self):
        found = trees.map_leaves(lambda a: a + 1, [jnp.arange(3), jnp.zeros(2)])
        assert found[0].dtype == jnp.arange(3).dtype
        np.testing.assert_array_equal(found[0], [1, 2, 3])

    def test_trees_have_to_be_alike(self):
        with pytest.raises(ValueError, match="zip"):
            trees.map_leaves(jnp.add, {"a": jnp.zeros(2)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)})


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
