"""Normalisation, and the source's renormalisation towards the target's statistics."""

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.image.normalise import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise,
    source_statistics,
    standardise,
)

CITYSCAPES_MEAN, CITYSCAPES_STD = (0.300, 0.344, 0.297), (0.175, 0.180, 0.177)
PUBLISHED = {
    "gta5": ((0.481, 0.479, 0.465), (0.243, 0.239, 0.237)),
    "synthia": ((0.315, 0.278, 0.248), (0.225, 0.214, 0.210)),
}


def test_normalise_takes_out_imagenet_statistics():
    image = jnp.array([[[0, 128, 255]]], jnp.uint8)
    expected = [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    ours = normalise(image)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["gta5", "synthia"])
def test_renormalised_source_looks_like_the_target(name):
    """What is m source deviations off its mean maps to what is m target deviations off the
    target's, normalised with ImageNet's numbers."""
    mean, std = source_statistics(name)
    for m in (-1.0, 0.0, 2.0):
        source = np.array(PUBLISHED[name][0]) + m * np.array(PUBLISHED[name][1])
        target = np.array(CITYSCAPES_MEAN) + m * np.array(CITYSCAPES_STD)
        expected = standardise(jnp.array(target), IMAGENET_MEAN, IMAGENET_STD)
        np.testing.assert_allclose(
            standardise(jnp.array(source), mean, std), expected, rtol=1e-4, atol=1e-5
        )


def test_source_statistics_by_hand():
    mean, std = source_statistics("gta5")
    assert mean[0] == pytest.approx(0.481 - 0.243 / 0.175 * (0.300 - 0.485), abs=1e-9)
    assert std[0] == pytest.approx(0.243 * 0.229 / 0.175, abs=1e-9)


def test_an_unknown_source_is_normalised_as_the_target():
    assert source_statistics("none") == (IMAGENET_MEAN, IMAGENET_STD)


def test_unknown_source_is_named():
    with pytest.raises(UserError, match=r"'gta'.*gta5, synthia"):
        source_statistics("gta")
