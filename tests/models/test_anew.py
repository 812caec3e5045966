"""Functions that are computed again for the gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.models.anew import computed_anew

X = jnp.linspace(-1, 1, 12).reshape(3, 4)
WEIGHT = jnp.linspace(0, 1, 4)


def function(x, weight):
    return jnp.sin(x) * weight


def anew(x, weight):
    return computed_anew(function, x, weight)


def test_results_and_gradients_are_the_functions():
    upstream = jnp.cos(X)
    (ours, pull_back), (theirs, expected) = (jax.vjp(f, X, WEIGHT) for f in (anew, function))
    np.testing.assert_array_equal(ours, theirs)
    for mine, other in zip(pull_back(upstream), expected(upstream), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_only_the_arguments_are_kept():
    kept = jax.tree.leaves(jax.vjp(anew, X, WEIGHT)[1])
    assert sorted(leaf.shape for leaf in kept) == [(3, 4), (4,)]


def test_xla_does_not_keep_the_result_either():
    """It would have to find that the sine is computed twice to keep it."""

    def sines(f):
        gradient = jax.jit(jax.grad(lambda w, x: jnp.square(f(x, w)).sum()))
        return gradient.lower(WEIGHT, X).compile().as_text().count(" sine(")

    assert sines(function) == 1 < sines(anew)
