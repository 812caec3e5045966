"""Fresh variables: those of the network's own initialisation, from fewer programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.initialisation import initialise
from dasac_jax.models.deeplabv2 import AtrousHead
from dasac_jax.models.layers import BatchNorm, Conv, torch_default
from dasac_jax.models.vgg import VGGFeatures


class Network(nn.Module):
    """Every kind of parameter, some of one shape, some that no image reaches."""

    @nn.compact
    def __call__(self, images):
        x = VGGFeatures("4 F6", name="features")(images, False)
        for name in ("conv1", "conv2"):
            x = Conv(6, kernel_init=torch_default, name=name)(x)
        x = BatchNorm(name="bn1")(x, True)
        self.param("spare", nn.initializers.normal(0.5), (3,))
        self.param("constant", lambda key: jnp.arange(3.0))
        return AtrousHead(2, name="layer5")(x)


def test_the_bits_are_those_of_the_networks_own_initialisation():
    images, model, key = jnp.zeros((1, 16, 16, 3)), Network(), jax.random.key(2**32 - 1)
    ours, theirs = initialise(model, key, images), jax.jit(model.init)(key, images)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    kernels = [ours["params"][name]["kernel"] for name in ("conv1", "conv2")]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).all()
