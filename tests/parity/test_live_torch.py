"""The networks' operations, the losses and the optimiser against PyTorch itself, on random inputs.

The golden numbers pin one input each; these tests need the [torch] extra.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.method import optim
from dasac_jax.method.losses import cross_entropy
from dasac_jax.models import upsample
from dasac_jax.models.layers import BatchNorm, Conv, max_pool_2x2, max_pool_ceil

pytestmark = pytest.mark.torch
SEEDS = pytest.mark.parametrize("seed", range(3))
# One parameter of every kind, of old layers and of new ones.
SHAPES = {
    "conv1/kernel": (3, 3, 4, 5),
    "bn1/scale": (5,),
    "bn1/bias": (5,),
    "features/7/bias": (5,),
    "features/42/kernel": (1, 1, 5, 6),
    "features/44/bias": (6,),
    "layer5/0/kernel": (3, 3, 6, 7),
    "layer5/0/bias": (7,),
    "vgg_head/1/scale": (7,),
    "vgg_head/1/bias": (7,),
}
GROUPS = {  # (learning rate factor, weight decay) and the parameters it holds for
    (1, 5e-4): ("conv1/kernel", "bn1/scale"),
    (2, 0): ("bn1/bias", "features/7/bias"),
    (10, 5e-4): ("features/42/kernel", "layer5/0/kernel", "vgg_head/1/scale"),
    (20, 0): ("features/44/bias", "layer5/0/bias", "vgg_head/1/bias"),
}


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nchw(torch, array):
    return torch.tensor(np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1)))


def nhwc(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return np.linalg.norm(np.asarray(ours, np.float64) - theirs) / np.linalg.norm(theirs)


def optimised(torch, kind, seed, rate=1e-2, steps=20):
    """Parameters after 20 steps on the same random gradients, ours and PyTorch's."""
    rng = np.random.default_rng(seed)
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [
        {"params": [theirs[n] for n in names], "lr": rate * factor, "weight_decay": decay}
        for (factor, decay), names in GROUPS.items()
    ]
    make = partial(torch.optim.SGD, momentum=0.9)
    if kind == "adam":
        make = partial(torch.optim.Adam, betas=(0.5, 0.999), eps=1e-8)
    reference = make(groups, lr=rate)

    params = unflatten_dict(start, sep="/")
    optimiser = optim.create(rate, kind=kind, momentum=0.9, weight_decay=5e-4)
    opt_state = optimiser.init(params)

    @jax.jit
    def step(params, opt_state, grads):
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(steps):
        grads = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
        for name, grad in grads.items():
            theirs[name].grad = torch.tensor(grad)
        reference.step()
        params, opt_state = step(params, opt_state, unflatten_dict(grads, sep="/"))
    theirs = {name: value.detach().numpy() for name, value in theirs.items()}
    return flatten_dict(params, sep="/"), theirs, start


@SEEDS
@pytest.mark.parametrize(
    ("kind", "bound"),
    # Adam's 1 − 0.999ᵗ is float32 in optax and float64 in PyTorch: 1.3e-5 apart at t = 1, under
    # a square root.
    [("sgd", 1e-6), ("adam", 2e-5)],
)
def test_optimiser_with_four_groups_over_20_steps(torch, kind, bound, seed):
    ours, theirs, start = optimised(torch, kind, seed)
    for name in SHAPES:
        assert relative(ours[name] - start[name], theirs[name] - start[name]) < bound, name


@SEEDS
@pytest.mark.parametrize("size", [(64, 128), (97, 61), (9, 17), (1, 1)])
def test_upsampling_and_its_gradient(torch, size, seed):
    logits, upstream = random(seed, 2, 9, 17, 5), random(seed + 10, 2, *size, 5)
    theirs = nchw(torch, logits).requires_grad_()
    expected = torch.nn.functional.interpolate(theirs, size, mode="bilinear", align_corners=True)
    expected.backward(nchw(torch, upstream))

    ours, pull_back = jax.vjp(lambda x: upsample(x, size), logits)

    assert relative(ours, nhwc(expected)) < 1e-6
    assert relative(pull_back(jnp.asarray(upstream))[0], nhwc(theirs.grad)) < 1e-6


@SEEDS
def test_cross_entropy_counts_ignored_pixels_in_the_mean(torch, seed):
    logits = 5 * random(seed, 2, 9, 13, 19)
    labels = np.random.default_rng(seed).integers(0, 25, (2, 9, 13))
    labels = np.where(labels >= 19, 255, labels).astype(np.int32)
    theirs = nchw(torch, logits).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        theirs, torch.tensor(labels).long(), ignore_index=255, reduction="none"
    ).mean()
    expected.backward()

    loss, grads = jax.value_and_grad(cross_entropy)(logits, labels)

    assert abs(loss / expected.item() - 1) < 1e-6
    assert relative(grads, nhwc(theirs.grad)) < 1e-6


@SEEDS
def test_batch_norm_over_three_batches(torch, seed):
    channels = 6
    scale, bias = 1 + 0.3 * random(seed, channels), random(seed + 1, channels)
    mean, var = random(seed + 2, channels), 0.5 + random(seed + 3, channels) ** 2
    parameters = [torch.tensor(p, requires_grad=True) for p in (scale, bias)]
    running = [torch.tensor(s) for s in (mean, var)]
    params = {"scale": scale, "bias": bias}
    statistics = {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}

    def normalise(params, x, statistics):
        y, updated = BatchNorm(channels).apply(
            {"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"]
        )
        return y, updated["batch_stats"]

    for batch in range(3):
        # Few pixels: there the unbiased variance is far from the biased one.
        x = 2 * random(100 * seed + batch, 2, 3, 4, channels) + 1
        upstream = random(100 * seed + 50 + batch, *x.shape)
        theirs = nchw(torch, x).requires_grad_()
        expected = torch.nn.functional.batch_norm(theirs, *running, *parameters, training=True)
        grads = torch.autograd.grad(expected, [theirs, *parameters], nchw(torch, upstream))

        ours, pull_back, statistics = jax.vjp(
            partial(normalise, statistics=statistics), params, x, has_aux=True
        )
        of_params, of_input = pull_back(jnp.asarray(upstream))

        assert relative(ours, nhwc(expected)) < 2e-6
        assert relative(of_input, nhwc(grads[0])) < 5e-6
        assert relative(of_params["scale"], grads[1]) < 2e-6
        assert relative(of_params["bias"], grads[2]) < 2e-6
        assert relative(statistics["mean"], running[0]) < 1e-6
        assert relative(statistics["var"], running[1]) < 1e-6

    variables = {"params": params, "batch_stats": statistics}
    expected = torch.nn.functional.batch_norm(nchw(torch, x), *running, *parameters)
    factor, shift = BatchNorm(channels).apply(variables, method="affine")
    assert relative(factor * x + shift, nhwc(expected)) < 2e-6


@pytest.mark.parametrize("size", [(16, 32), (17, 33), (9, 14), (1, 2)])
def test_ceil_mode_pool(torch, size):
    x, functional = random(0, 2, *size, 3), torch.nn.functional
    theirs = nchw(torch, x).requires_grad_()
    expected = functional.max_pool2d(theirs, 3, stride=2, padding=1, ceil_mode=True)
    expected.sum().backward()

    ours, pull_back = jax.vjp(max_pool_ceil, jnp.asarray(x))

    np.testing.assert_array_equal(ours, nhwc(expected))
    np.testing.assert_array_equal(pull_back(jnp.ones_like(ours))[0], nhwc(theirs.grad))


@pytest.mark.parametrize("size", [(16, 32), (17, 33)])
def test_floor_mode_pool(torch, size):
    x = random(0, 2, *size, 3)
    expected = torch.nn.functional.max_pool2d(nchw(torch, x), 2, stride=2)
    np.testing.assert_array_equal(max_pool_2x2(jnp.asarray(x)), nhwc(expected))


@SEEDS
@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [(3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 1, 24), (7, 2, 1), (1, 1, 1), (1, 2, 1)],
)
def test_convolution_and_its_gradients(torch, size, stride, dilation, seed):
    x, bias = random(seed, 2, 13, 18, 5), random(seed + 1, 4)
    kernel = random(seed + 2, size, size, 5, 4)
    padding = dilation * (size // 2)
    theirs = nchw(torch, x).requires_grad_()
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1).copy(), requires_grad=True)
    expected = torch.nn.functional.conv2d(
        theirs, weight, torch.tensor(bias), stride, padding, dilation
    )
    conv = Conv(4, size, stride, dilation, padding=padding, use_bias=True)

    ours, pull_back = jax.vjp(
        lambda kernel, x: conv.apply({"params": {"kernel": kernel, "bias": bias}}, x), kernel, x
    )
    upstream = random(seed + 3, *ours.shape)
    expected.backward(nchw(torch, upstream))
    of_kernel, of_input = pull_back(jnp.asarray(upstream))

    assert relative(ours, nhwc(expected)) < 1e-6
    assert relative(of_kernel, weight.grad.numpy().transpose(2, 3, 1, 0)) < 2e-6
    assert relative(of_input, nhwc(theirs.grad)) < 2e-6
