"""The method's functions give the same on any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import relative

from dasac_jax.errors import UserError
from dasac_jax.method import consistency

BETA = 1e-3


def random_views(count=8, size=(16, 24), classes=5):
    random = np.random.default_rng(3)
    logits = random.normal(scale=3, size=(count, *size, classes))
    probs = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    padded = random.random((count, *size)) < 0.1
    windows = random.uniform(-4, 4, (count, 2)), random.uniform(0.5, 1, count)
    matrices = consistency.view_matrices(*windows, random.choice([-1, 1], count), size)
    return probs, padded, *matrices


def over_devices(devices, function, *views):
    """Runs `function` with the views dealt to `devices`; its outputs stacked over them."""
    shards = [np.reshape(x, (devices, -1, *x.shape[1:])) for x in views]
    return jax.pmap(function, axis_name="batch", devices=jax.devices()[:devices])(*shards)


CONFIDENCE_IMAGES = (1, 2, 4, 8, None)
PRIOR = jnp.array([BETA, 0.3, 0.1, BETA, 0.2])


def spread_method(probs, padded, there, back, logits, labels, *, axis_name=None):
    """Everything that looks beyond its own device."""
    fuse = partial(consistency.fuse_views, group_size=4, axis_name=axis_name)
    loss = partial(consistency.target_loss, focal_power=3, confidence_weighting="batch")
    update = partial(consistency.update_class_prior, momentum=0.99, beta=BETA)
    loss_inputs = logits, labels, probs.max(-1), PRIOR
    return {
        "average": fuse(probs, padded, there, back),
        "minentropy": fuse(probs, padded, there, back, pool="minentropy"),
        "prior": update(PRIOR, probs, axis_name=axis_name),
        "losses": [
            loss(*loss_inputs, confidence_images=images, axis_name=axis_name)
            for images in CONFIDENCE_IMAGES
        ],
    }


@pytest.fixture(scope="module")
def spread_inputs():
    views = random_views()
    random = np.random.default_rng(4)
    logits = random.normal(size=views[0].shape).astype(np.float32)
    labels = random.choice([0, 1, 2, 3, 4, 255], views[1].shape).astype(np.int32)
    return *views, logits, labels


@pytest.fixture(scope="module")
def alone(spread_inputs):
    return jax.jit(spread_method)(*spread_inputs)


class TestDevices:
    @pytest.mark.parametrize("devices", [1, 2, 4, 8])
    def test_results_do_not_depend_on_the_device_count(self, alone, spread_inputs, devices):
        spread = over_devices(devices, partial(spread_method, axis_name="batch"), *spread_inputs)
        for pool in ("average", "minentropy"):
            assert relative(np.reshape(spread[pool], alone[pool].shape), alone[pool]) < 1e-5
        for prior in spread["prior"]:
            assert relative(prior, alone["prior"]) < 1e-5
        losses = [loss.mean() for loss in spread["losses"]]
        np.testing.assert_allclose(losses, alone["losses"], rtol=1e-5)
        assert len({round(float(loss), 4) for loss in losses}) == len(CONFIDENCE_IMAGES) - 1

    def test_without_pooling_any_views_fit_any_devices(self):
        views = random_views(6)
        fuse = partial(consistency.fuse_views, group_size=4, pool="none", axis_name="batch")
        spread = over_devices(3, fuse, *views).reshape(views[0].shape)
        np.testing.assert_array_equal(spread, np.where(views[1][..., None], 0, views[0]))

    @pytest.mark.parametrize(
        ("views", "devices", "message"),
        [
            (12, 2, r"does not fit 6 views on each of 2 devices.*that work: 1, 3, 6, 12\b"),
            (6, 2, "6 views are no multiple of 4"),
            (2, 1, "2 views are no multiple of 4"),
        ],
    )
    def test_refuses_groups_that_do_not_fit_the_devices(self, views, devices, message):
        fuse = partial(consistency.fuse_views, group_size=4, axis_name="batch")
        with pytest.raises(UserError, match=message):
            over_devices(devices, fuse, *random_views(views))
