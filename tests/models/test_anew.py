"""What is computed once, what again for the gradient, and not before."""

import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.models.anew import after, computed_anew, computed_once

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


def test_computed_once_is_exact_and_so_is_its_gradient():
    x = jnp.array([[0.0, -1.5, jnp.inf, 1e-30], [jnp.nan, -jnp.inf, 3.0, 0.1], [-2.0, 1.0, 7, 9]])
    for start in (x, x[1:], x[2:], x.astype(jnp.bfloat16)):
        y, pull_back = jax.vjp(jax.jit(computed_once), start)
        assert y.dtype == start.dtype
        for same in (y, pull_back(start)[0]):
            np.testing.assert_array_equal(same.astype(jnp.float32), start.astype(jnp.float32))


def test_computed_once_does_nothing_on_gpus(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not jax.make_jaxpr(computed_once)(jnp.ones(3)).eqns


def test_after_is_exact():
    x = jnp.array([0.0, -1.5, jnp.inf, 1e-30, jnp.nan, 3e38])
    for start in (x, x.astype(jnp.bfloat16)):
        found = jax.jit(after)(jnp.full((2, 2), 7.0), start)
        assert found.dtype == start.dtype
        np.testing.assert_array_equal(found.astype(jnp.float32), start.astype(jnp.float32))
