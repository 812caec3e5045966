"""The method's building blocks against PyTorch's own functions, on random inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import warp
from dasac_jax.method import consistency

pytestmark = pytest.mark.torch
warp_affine = jax.jit(warp.warp_affine)
warp_ones = jax.jit(warp.warp_ones, static_argnums=1)
fuse_views = jax.jit(consistency.fuse_views, static_argnames=("group_size", "pool"))


def relative(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def random_matrices(random, count, size):
    offsets = random.uniform(-0.3, 0.3, (count, 2)) * size
    flips = random.choice([-1, 1], count)
    return consistency.view_matrices(offsets, random.uniform(0.5, 1.6, count), flips, size)


def torch_warp(torch, images, matrices):
    """(B, H, W, C) -> (B, H, W, C), through PyTorch's channels-first functions."""
    images = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    matrices = torch.tensor(np.asarray(matrices))
    grid = torch.nn.functional.affine_grid(matrices, images.shape, align_corners=False)
    warped = torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.permute(0, 2, 3, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(64, 128), (37, 51)])
def test_warp(torch, size, seed):
    random = np.random.default_rng(seed)
    images = random.random((6, *size, 5), np.float32)
    for matrices in random_matrices(random, 6, size):  # to the frame, and from it
        expected = torch_warp(torch, images, matrices)
        assert 0.05 < float((expected == 0).float().mean()) < 0.95  # some of it lies outside
        assert relative(warp_affine(images, matrices), expected) < 1e-5
        ones = torch_warp(torch, np.ones_like(images[..., :1]), matrices)[..., 0]
        assert relative(warp_ones(matrices, size), ones) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_average_fusion(torch, seed):
    random = np.random.default_rng(seed)
    size, views = (32, 48), 8
    probs = torch.tensor(random.normal(size=(views, *size, 6)), dtype=torch.float32)
    probs = (2 * probs).softmax(-1)
    padded = random.random((views, *size)) < 0.2
    there, back = random_matrices(random, views, size)

    ones = torch.ones(views, *size, 1)
    aligned = torch_warp(torch, probs * torch.tensor(~padded)[..., None], there)
    groups = (aligned * torch_warp(torch, ones, back)).reshape(2, 4, *size, 6)
    summed = groups.sum(1)
    total = summed.sum(-1, keepdim=True)
    pooled = (summed / total.clamp(min=1e-3)).repeat_interleave(4, 0)
    valid = (total > 0.1).float().repeat_interleave(4, 0)
    expected = torch_warp(torch, pooled, back) * torch_warp(torch, valid, back)

    refined = fuse_views(jnp.asarray(probs), padded, there, back, group_size=4)
    assert relative(refined, expected) < 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighting", ["pixel", "batch", "none"])
def test_target_loss_and_its_gradient(torch, weighting, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(scale=4, size=(4, 16, 24, 7)).astype(np.float32)
    labels = random.integers(0, 7, (4, 16, 24)).astype(np.int32)
    labels[random.random(labels.shape) < 0.4] = 255
    confidence = random.random(labels.shape, np.float32)
    prior = random.uniform(-0.1, 0.6, 7).astype(np.float32)

    theirs = torch.tensor(logits).requires_grad_()
    entropy = torch.nn.functional.cross_entropy(
        theirs.permute(0, 3, 1, 2),
        torch.tensor(labels).long(),
        weight=(1 - torch.tensor(prior).clamp(min=0)) ** 3,
        ignore_index=255,
        reduction="none",
    )
    pairs = torch.tensor(confidence).reshape(2, 2, 16, 24).mean(1).repeat_interleave(2, 0)
    factors = {"pixel": torch.tensor(confidence), "batch": pairs, "none": 1}
    expected = (entropy * factors[weighting]).mean()
    expected.backward()

    options = {"confidence_weighting": weighting, "confidence_images": 2}
    loss = jax.value_and_grad(partial(consistency.target_loss, focal_power=3, **options))
    ours, gradient = jax.jit(loss)(logits, labels, confidence, prior)
    assert abs(float(ours) - expected.item()) <= 1e-6 * expected.item()
    assert relative(gradient, theirs.grad) < 1e-5


def test_entropy_of_the_chosen_view_is_the_least(torch):
    random = np.random.default_rng(5)
    probs = torch.tensor(random.normal(size=(4, 12, 20, 6)), dtype=torch.float32)
    probs = (3 * probs).softmax(-1)
    entropy = torch.distributions.Categorical(probs=probs).entropy()
    expected = torch.gather(probs, 0, entropy.argmin(0)[None, ..., None].expand(1, 12, 20, 6))
    still = consistency.view_matrices(np.zeros((4, 2)), np.ones(4), np.ones(4), (12, 20))
    refined = fuse_views(
        jnp.asarray(probs), np.zeros((4, 12, 20), bool), *still, group_size=4, pool="minentropy"
    )
    assert relative(refined, expected.expand(4, 12, 20, 6)) < 1e-5
