"""The networks by name: their layers, their start, their dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.models import ARCHITECTURES, create_model, has_batch_norm
from dasac_jax.models.deeplabv2 import AtrousHead, DeepLabV2ResNet
from dasac_jax.models.fcn import VGGHead
from dasac_jax.models.vgg import VGGFeatures


def test_unknown_network():
    with pytest.raises(UserError, match="'resnet50'; choose one of deeplabv2_resnet101, "):
        create_model("resnet50")


@pytest.mark.parametrize("arch", list(filter(has_batch_norm, ARCHITECTURES)))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_statistics_and_logits_are_float32(arch, dtype):
    model = create_model(arch, num_classes=7, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 64, 128, 3), jnp.float32)
    logits, variables = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, train=True), jax.random.key(0), images
    )
    assert set(variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float32")}
    assert logits.shape == (2, *((8, 16) if "vgg" in arch else (9, 17)), 7)


def test_head_sums_four_dilated_branches():
    x = np.zeros((1, 49, 49, 2), np.float32)
    x[0, 24, 24] = 1
    head = AtrousHead(num_classes=1)
    params = head.init(jax.random.key(0), x)["params"]
    for i in range(4):
        params[str(i)] = {"kernel": jnp.full((3, 3, 2, 1), 10.0**i), "bias": jnp.full(1, 0.25)}
    logits = head.apply({"params": params}, x)[0, :, :, 0]
    for i, rate in enumerate((6, 12, 18, 24)):
        for dy, dx in ((rate, 0), (0, -rate), (-rate, rate)):
            assert logits[24 + dy, 24 + dx] == pytest.approx(2 * 10.0**i + 1)
    assert logits[24, 24] == pytest.approx(2 * 1111 + 1)
    assert logits[20, 24] == 1


def start(module, shape, *arguments):
    """A module's own parameters."""
    init = jax.jit(lambda key: module.init(key, jnp.zeros(shape), *arguments))
    return init(jax.random.key(0))["params"]


class TestStart:
    """What the layers' parameters are drawn from."""

    def test_atrous_head(self):
        params = start(AtrousHead(num_classes=19), (1, 4, 4, 256))
        for branch in params.values():
            assert branch["kernel"].std() == pytest.approx(0.01, rel=0.05)
        bias = jnp.concatenate([branch["bias"] for branch in params.values()])
        assert 0.9 < np.abs(bias).max() * (9 * 256) ** 0.5 <= 1

    def test_vgg(self):
        params = start(VGGFeatures("64 D64 F64"), (1, 8, 8, 3), True)
        # torchvision's: normal by the fan out, without bias; fc6 and fc7 as PyTorch's default.
        assert params["3"]["kernel"].std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
        assert not params["3"]["bias"].any()
        for leaf in (params["6"]["kernel"], params["6"]["bias"]):
            assert 0.9 < np.abs(leaf).max() * (9 * 64) ** 0.5 <= 1

    def test_fcn_head(self):
        params = start(VGGHead(num_classes=19, width=64), (1, 2, 4, 16), True, None)
        for layer, fan_in in (("0", 49 * 16), ("4", 64), ("8", 64)):
            for leaf in params[layer].values():
                assert 0.85 < np.abs(leaf).max() * fan_in**0.5 <= 1


def network(**options):
    widths = {"blocks": (1, 1, 1, 1), "widths": (2, 3, 4, 5), "stem": 4}
    return DeepLabV2ResNet(num_classes=3, **widths, **options)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(network().init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)


def apply(variables, images, train, **options):
    function = partial(network(**options).apply, train=train, mutable=["batch_stats"])
    return jax.jit(function)(variables, images)


class TestResNet:
    def test_frozen_statistics_are_used_and_kept_in_training(self, variables, images):
        logits, updated = apply(variables, images, True, frozen_norm=True)
        expected, _ = apply(variables, images, False)
        np.testing.assert_allclose(logits, expected, rtol=1e-5)
        statistics = variables["batch_stats"]
        jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], statistics)

    def test_every_norm_moves_in_training(self, variables, images):
        _, updated = apply(variables, images, True)
        before = jax.tree.leaves(variables["batch_stats"])
        for old, new in zip(before, jax.tree.leaves(updated["batch_stats"]), strict=True):
            assert (old != np.asarray(new)).any()

    def test_strides_and_widths_of_its_stages(self, variables, images):
        _, seen = jax.eval_shape(
            partial(network().apply, capture_intermediates=True), variables, images
        )
        seen = seen["intermediates"]
        shapes = [seen[f"layer{i}"]["__call__"][0].shape for i in (1, 2, 3, 4)]
        assert shapes == [(2, 9, 13, 8), (2, 5, 7, 12), (2, 5, 7, 16), (2, 5, 7, 20)]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_vggs_first_layers_are_finite_in_every_type(dtype):
    """With JAX 0.12 XLA's own pool behind convolutions gave NaN in bfloat16, on some starts."""
    layers = VGGFeatures("64 64P", dtype=dtype)
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    variables = layers.init(jax.random.key(0), images, True)
    found = jax.jit(lambda v, x: layers.apply(v, x, True))(variables, images)
    assert found.shape == (1, 32, 32, 64) and found.dtype == dtype
    assert np.isfinite(np.asarray(found, np.float32)).all()
