"""Batch norm over devices and in convolutions, ReLU, dropout per image, pools, upsampling."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import deeplabv2
from dasac_jax.models.deeplabv2 import Stage
from dasac_jax.models.fcn import VGGHead
from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    batch_moments,
    channel_dropout,
    conv_norm,
    corner_aligned_matrix,
    max_pool_2x2,
    max_pool_ceil,
    upsample,
)


# Operation by operation, XLA would compile each of them apart.
@partial(jax.jit, static_argnums=0)
def with_gradients(function, *arguments):
    """function(*arguments), and the gradients for each argument from a fixed upstream one."""
    y, pull_back = jax.vjp(function, *arguments)
    upstream = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    return y, *pull_back(upstream)


@pytest.fixture
def x():
    return 3 + np.random.default_rng(0).normal(size=(8, 3, 5, 4)).astype(np.float32)


class TestBatchNorm:
    def test_moments_over_devices_are_those_of_the_whole_batch(self, x):
        split = x.reshape(4, 2, *x.shape[1:])
        moments = jax.pmap(
            lambda part: batch_moments(part, "batch"), "batch", devices=jax.devices()[:4]
        )(split)
        pixels = x.reshape(-1, 4).astype(np.float64)
        for device in range(4):
            mean, var, count = (moment[device] for moment in moments)
            np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
            np.testing.assert_allclose(var, pixels.var(0), rtol=1e-5)
            assert count == len(pixels)

    def test_running_statistics(self, x):
        statistics = {"mean": np.full(4, 7, np.float32), "var": np.full(4, 2, np.float32)}
        variables = {
            "params": {"scale": np.full(4, 2, np.float32), "bias": np.ones(4, np.float32)},
            "batch_stats": statistics,
        }
        y, updated = BatchNorm(4).apply(variables, x, mutable=["batch_stats"])
        pixels = x.reshape(-1, 4).astype(np.float64)
        expected = 2 * (pixels - pixels.mean(0)) / np.sqrt(pixels.var(0) + 1e-5) + 1
        np.testing.assert_allclose(y.reshape(-1, 4), expected, rtol=1e-4, atol=1e-5)
        updated = updated["batch_stats"]
        np.testing.assert_allclose(updated["mean"], 0.9 * 7 + 0.1 * pixels.mean(0), rtol=1e-6)
        unbiased = pixels.var(0, ddof=1)
        np.testing.assert_allclose(updated["var"], 0.9 * 2 + 0.1 * unbiased, rtol=1e-6)

    def test_initialisation_needs_no_devices_and_keeps_the_statistics(self, x):
        variables = BatchNorm(4, axis_name="batch").init(jax.random.key(0), x)
        assert not variables["batch_stats"]["mean"].any()
        assert (variables["batch_stats"]["var"] == 1).all()

    def test_statistics_stay_float32_for_bfloat16(self, x):
        norm, x = BatchNorm(4, dtype=jnp.bfloat16), jnp.asarray(x, jnp.bfloat16)
        variables = norm.init(jax.random.key(0), x)
        y, updated = norm.apply(variables, x, mutable=["batch_stats"])
        assert y.dtype == jnp.bfloat16
        leaves = jax.tree.leaves((variables, updated))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
        # Not a bfloat16 mean of values around 3, which could be off by 1e-2.
        expected = np.asarray(x, np.float64).reshape(-1, 4).mean(0) * 0.1
        np.testing.assert_allclose(updated["batch_stats"]["mean"], expected, rtol=1e-5)


class Normed(nn.Module):
    """A convolution and its batch norm, as one or one after the other."""

    conv: dict
    together: bool

    @nn.compact
    def __call__(self, x, use_running):
        conv = Conv(5, **self.conv, name="conv")
        norm = BatchNorm(5, name="norm")
        if self.together or not use_running:
            return conv_norm(conv, norm, x, use_running)
        factor, shift = norm.affine()
        return factor * conv(x) + shift


# The ways that a layer can go, see test_winograd.py for the one of many pixels.
@pytest.mark.parametrize(
    "conv",
    [
        {"size": 1, "stride": 2},
        {"dilation": 2, "use_bias": True},
        {"size": 7, "stride": 2, "padding": 3},
        {"size": 7, "padding": 3, "use_bias": True},
    ],
    ids=str,
)
def test_a_norm_with_running_statistics_is_part_of_its_convolution(conv):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 9, 11, 6)).astype(np.float32)
    together, apart = Normed(conv, True), Normed(conv, False)
    variables, fresh = (
        jax.eval_shape(partial(model.init, use_running=running), jax.random.key(0), x)
        for model, running in ((together, True), (apart, False))
    )
    assert variables == fresh
    variables = jax.tree.map(lambda v: np.float32(0.5 + random.random(v.shape)), variables)

    def both(model):
        apply = partial(model.apply, use_running=True)
        return jax.tree.leaves(with_gradients(apply, variables, x))

    for ours, expected in zip(both(together), both(apart), strict=True):
        assert np.linalg.norm(ours - expected) < 3e-6 * np.linalg.norm(expected)


class TestDropout:
    def test_draws_of_an_image_do_not_depend_on_its_batch(self):
        head = VGGHead(num_classes=3, width=32)
        images = np.random.default_rng(0).normal(size=(4, 2, 3, 5)).astype(np.float32)
        keys = jax.random.split(jax.random.key(7), 4)
        begin = partial(head.init, use_running=True, dropout_keys=None)
        shapes = jax.eval_shape(begin, jax.random.key(0), images)
        rng = np.random.default_rng(2)  # JAX's own numbers take longer to compile
        variables = jax.tree.map(lambda v: np.float32(rng.uniform(0, 0.1, v.shape)), shapes)
        apply = jax.jit(lambda images, keys: head.apply(variables, images, True, keys))
        whole = apply(images, keys)
        parts = [apply(images[half], keys[half]) for half in (slice(0, 2), slice(2, 4))]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
        assert np.abs(apply(images, None) - whole).max() > 1e-3

    def test_drops_whole_channels_and_scales_the_others(self):
        keys = jax.random.split(jax.random.key(1), 64)
        dropped = np.asarray(channel_dropout(jnp.ones((64, 2, 3, 100)), keys, 0, 0.1))
        assert (dropped == dropped[:, :1, :1]).all()
        np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.9], rtol=1e-6)
        assert 0.08 < (dropped == 0).mean() < 0.12

    def test_layers_and_images_draw_their_own(self):
        keys, ones = jax.random.split(jax.random.key(1), 2), jnp.ones((2, 1, 1, 200))
        first, second = (channel_dropout(ones, keys, layer, 0.5) for layer in (0, 1))
        assert (first != second).any()
        assert (first[0] != first[1]).any()

    def test_no_keys_no_dropout(self):
        ones = jnp.ones((2, 3, 3, 4))
        assert channel_dropout(ones, None, 0, 0.5) is ones


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (2, 2), (32, 17), (33, 17), (256, 129)])
def test_rows_of_the_ceil_mode_pool(n, rows):
    shape = jax.eval_shape(max_pool_ceil, jax.ShapeDtypeStruct((1, n, n, 2), jnp.float32)).shape
    assert shape == (1, rows, rows, 2)


def test_ceil_mode_pool_by_hand():
    x = jnp.arange(-20.0, 0.0).reshape(1, 4, 5, 1)  # negative: padding with 0 would show
    assert max_pool_ceil(x)[0, :, :, 0].tolist() == [[-14, -12, -11], [-4, -2, -1], [-4, -2, -1]]
    assert max_pool_2x2(x)[0, :, :, 0].tolist() == [[-14, -12], [-4, -2]]


@pytest.mark.parametrize(
    ("size_in", "size_out"), [(9, 64), (17, 128), (5, 5), (1, 4), (4, 1), (7, 3)]
)
def test_interpolation_weights(size_in, size_out):
    matrix = corner_aligned_matrix(size_in, size_out)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    # A ramp stays a ramp between the same corners.
    expected = np.linspace(0, size_in - 1, size_out)
    np.testing.assert_allclose(matrix @ np.arange(size_in), expected, atol=1e-5)


def test_upsampling_keeps_the_corners():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    upsampled = upsample(jnp.asarray(logits, jnp.bfloat16), (17, 33))
    assert upsampled.dtype == jnp.float32
    corners = np.ix_([0, 1], [0, 16], [0, 32])
    expected = np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float32)[:, ::2, ::3]
    np.testing.assert_allclose(upsampled[corners], expected, rtol=1e-6)


def test_convolution_starts():
    x = jnp.zeros((1, 4, 4, 8))
    params = Conv(256, use_bias=True).init(jax.random.key(0), x)["params"]
    assert params["kernel"].std() == pytest.approx(0.01, rel=0.05)
    bound = (9 * 8) ** -0.5  # PyTorch's default for biases
    assert 0.95 * bound < np.abs(params["bias"]).max() <= bound


class Joined(nn.Module):
    """A residual block's last convolution and its projected shortcut, and a convolution after."""

    @nn.compact
    def __call__(self, x):
        y = Conv(256, 1, use_bias=True)(x)
        shortcut = Conv(256, 1, use_bias=True)(x, after=y)
        return Conv(8, 1)(deeplabv2.residual(y, shortcut))


def test_a_residual_sum_is_written_over_what_it_sums():
    x = jnp.ones((1, 33, 65, 32))
    variables = jax.eval_shape(lambda: Joined().init(jax.random.key(0), x))
    needed = jax.jit(Joined().apply).lower(variables, x).compile().memory_analysis()
    assert needed.temp_size_in_bytes < 2.5 * 33 * 65 * 256 * 4


def test_residual_sums_are_computed_once():
    stage = Stage(4, 8, 1, 2, Conv, BatchNorm)
    x = jnp.ones((2, 17, 33, 32))
    variables = jax.eval_shape(lambda: stage.init(jax.random.key(0), x, True))
    forward = jax.jit(lambda variables, x: stage.apply(variables, x, True))
    program = forward.lower(variables, x).compile().as_text()
    assert program.count(" maximum(") == 3 * 4  # ReLUs of four blocks, none repeated
