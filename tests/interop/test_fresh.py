"""Layers that a file lacks start as the networks start theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.interop.fresh import fresh
from dasac_jax.interop.names import entries, is_new, state_dict_from_variables
from dasac_jax.models.deeplabv2 import AtrousHead


def test_heads_as_the_network_draws_them():
    shapes = entries("deeplabv2_demo", 19)
    names = tuple(
        name for name, shape in shapes.items() if is_new("deeplabv2_demo", name, len(shape))
    )
    ours = fresh(names, shapes, 0)
    head = AtrousHead(19).init(jax.random.key(0), jnp.zeros((1, 1, 1, 128)))["params"]
    theirs = state_dict_from_variables(
        "deeplabv2_demo", {"params": {"layer5": head}, "batch_stats": {}}
    )
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert (array.shape, array.dtype) == (theirs[name].shape, np.float32)
        if name.endswith("weight"):
            np.testing.assert_allclose(array.std(), theirs[name].std(), rtol=0.03)
            np.testing.assert_allclose(np.abs(array).max(), np.abs(theirs[name]).max(), rtol=0.3)
        else:  # few numbers
            bound = (128 * 9) ** -0.5
            assert bound >= np.abs(array).max() > 0.8 * bound > 0.5 * np.abs(theirs[name]).max()


@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_layers_between(leaf):
    shapes = {"features.42.weight": (96, 32, 3, 3), "features.42.bias": (96,)}
    array = fresh((f"features.42.{leaf}",), shapes, 0)[f"features.42.{leaf}"]
    bound = (32 * 9) ** -0.5
    assert 0.95 * bound < array.max() <= bound and -bound <= array.min() < -0.95 * bound
    np.testing.assert_allclose(array.std(), bound / 3**0.5, rtol=0.15)


def test_the_fully_convolutional_head():
    shapes = {
        "vgg_head.0.weight": (40, 30, 7, 7), "vgg_head.0.bias": (40,),
        "vgg_head.1.weight": (40,), "vgg_head.1.bias": (40,),
        "vgg_head.1.running_mean": (40,), "vgg_head.1.running_var": (40,),
        "score_pool4.weight": (19, 512, 1, 1), "score_pool4.bias": (19,),
    }  # fmt: skip
    found = fresh(tuple(shapes), shapes, 0)
    bound = (30 * 49) ** -0.5
    for leaf in ("weight", "bias"):
        assert 0.9 * bound < np.abs(found[f"vgg_head.0.{leaf}"]).max() <= bound
    for leaf, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert (found[f"vgg_head.1.{leaf}"] == value).all()
    np.testing.assert_allclose(found["score_pool4.weight"].std(), 0.01, rtol=0.05)
    assert 0.5 * 512**-0.5 < np.abs(found["score_pool4.bias"]).max() <= 512**-0.5


def test_the_seed_decides():
    shapes = {"score_pool4.weight": (19, 8, 1, 1), "score_pool4.bias": (19,)}
    a, b, c = (fresh(tuple(shapes), shapes, seed)["score_pool4.weight"] for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
