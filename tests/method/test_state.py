"""The state of a training at its beginning."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import optim, state
from dasac_jax.models.layers import BatchNorm, Conv, conv_norm


class Network(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, images):
        conv = Conv(self.num_classes, name="conv1")
        return conv_norm(conv, BatchNorm(self.num_classes, name="bn1"), images, True)


@pytest.fixture(scope="module")
def model():
    return Network()


@pytest.fixture(scope="module")
def variables(model):
    return model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_from_given_variables(model, variables):
    run = state.create(model, optim.create(0.1), seed=3, beta=0.25, variables=variables)
    for ours, given in ((run.student, variables), (run.teacher, variables)):
        jax.tree.map(np.testing.assert_array_equal, ours, dict(given))
    assert run.class_prior.tolist() == [0.25] * 3
    assert (int(run.step), int(run.seed)) == (0, 3)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(run.opt_state))


def test_no_two_leaves_share_a_buffer(model, variables):
    # Their buffers are donated to the step.
    run = state.create(model, optim.create(0.1), seed=0, variables=variables)
    leaves = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(run) if leaf.size]
    given = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(variables)]
    assert len({*leaves, *given}) == len(leaves) + len(given)


def test_own_initialisation_follows_the_seed(model):
    first, again, other = (
        state.create(model, optim.create(0.1), seed=seed).params for seed in (5, 5, 6)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [tree["conv1"]["kernel"] for tree in (first, other)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).any()


def test_a_network_is_traced_once_for_all_its_states():
    traced = []

    class Counting(Network):
        def __call__(self, images):
            traced.append(images.shape)
            return super().__call__(images)

    def begin(seed):
        return state.create(Counting(), optim.create(0.1), seed=seed)

    # As a run does: it draws a state, and restores others into the shapes of such a one.
    drawn = begin(0)
    shapes = jax.eval_shape(lambda: begin(1))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, shapes)
    assert len(traced) == 1


def test_given_weights_are_not_drawn(model):
    whole = state.drawn(model, 5)
    given = {"params/conv1/kernel": np.full((3, 3, 3, 3), 7, np.float32)}
    found = state.drawn(model, 5, given)
    assert (found["params"].pop("conv1")["kernel"] == 7).all()
    del whole["params"]["conv1"]
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_dtypes(model, variables):
    run = state.create(model, optim.create(0.1), seed=2**32 - 1, variables=variables)
    tensors = run.student, run.teacher, run.class_prior, run.opt_state
    assert {leaf.dtype for leaf in jax.tree.leaves(tensors)} == {jnp.dtype("float32")}
    assert (run.step.dtype, run.seed.dtype) == (jnp.int32, jnp.uint32)
    assert int(run.seed) == 2**32 - 1
