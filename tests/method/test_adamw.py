"""AdamW against PyTorch's: groups, warm-up, decay apart from the gradient, layer-wise rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.method import adamw, optim

RATE, DECAY, STEPS = 1e-2, 0.05, 20
# The shares of a network of three blocks, with encoder_rate 0.1 and layer_decay 0.5.
SHARES = {
    "head/out/kernel": 1.0,
    "head/norm1/scale": 1.0,
    "encoder/norm/bias": 0.1,
    "encoder/blocks/2/attn/qkv/kernel": 0.05,
    "encoder/blocks/1/ls1/gamma": 0.025,
    "encoder/blocks/0/mlp/fc1/bias": 0.0125,
    "encoder/patch_embed/kernel": 0.00625,
    "encoder/pos_embed": 0.00625,
    "encoder/cls_token": 0.00625,
    "encoder/mask_token": 0.0,
}


def drawn(rng):
    return {path: rng.normal(size=(3, 2)).astype(np.float32) for path in SHARES}


def test_shares_of_the_rate():
    tree = unflatten_dict(drawn(np.random.default_rng(0)), sep="/")
    found = flatten_dict(adamw.shares(tree, 0.1, 0.5), sep="/")
    assert found == pytest.approx(SHARES)
    alike = flatten_dict(adamw.shares(tree, 0.1, 1.0), sep="/")
    assert set(alike.values()) == {1.0, 0.1, 0.0}


def test_the_rate_rises_and_falls_in_straight_lines():
    rate = adamw.schedule(1.0, warmup_steps=10, total_steps=50)
    found = [float(rate(step)) for step in (0, 5, 10, 30, 50, 60)]
    assert found == pytest.approx([1e-3, 0.5005, 1, 0.5, 0, 0], abs=1e-6)
    assert float(adamw.schedule(0.3, 0, 0)(10**6)) == pytest.approx(0.3)
    assert float(adamw.schedule(0.3, 0, 4)(1)) == pytest.approx(0.225)


@pytest.mark.torch
@pytest.mark.parametrize(("warmup", "total"), [(15, 40), (20, 0)])
def test_twenty_steps_are_pytorchs(torch, warmup, total):
    rng = np.random.default_rng(1)
    params, grads = drawn(rng), [drawn(rng) for _ in range(STEPS)]
    options = {"warmup_steps": warmup, "encoder_rate": 0.1, "layer_decay": 0.5}
    optimiser = optim.create(RATE, kind="adamw", weight_decay=DECAY, total_steps=total, **options)
    tree = unflatten_dict(params, sep="/")
    state, history = optimiser.init(tree), []
    for grad in grads:
        updates, state = optimiser.update(unflatten_dict(grad, sep="/"), state, tree)
        tree = jax.tree.map(jnp.add, tree, updates)
        history.append(flatten_dict(tree, sep="/"))

    theirs = {path: torch.nn.Parameter(torch.tensor(x)) for path, x in params.items()}
    groups = [{"params": [theirs[path]], "lr": RATE * share} for path, share in SHARES.items()]
    adam = torch.optim.AdamW(groups, weight_decay=DECAY)
    schedulers = torch.optim.lr_scheduler
    schedule = schedulers.LinearLR(adam, adamw.WARMUP_BEGIN, 1.0, warmup)
    if total:
        down = schedulers.LinearLR(adam, 1.0, 0.0, total - warmup)
        schedule = schedulers.SequentialLR(adam, [schedule, down], [warmup])
    for grad, ours in zip(grads, history, strict=True):
        for path, parameter in theirs.items():
            parameter.grad = torch.tensor(grad[path])
        adam.step()
        schedule.step()
        for path, parameter in theirs.items():
            expected = parameter.detach().numpy()
            np.testing.assert_allclose(ours[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)


def test_everything_is_in_the_state_that_is_saved():
    """Moments and both counts, which a run that resumes goes on with."""
    tree = unflatten_dict(drawn(np.random.default_rng(2)), sep="/")
    optimiser = optim.create(RATE, kind="adamw", total_steps=9, warmup_steps=3)
    state = optimiser.init(tree)
    assert len(jax.tree.leaves(state)) == 2 * len(SHARES) + 2
    _, state = optimiser.update(tree, state, tree)
    counts = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == ()]
    assert [int(count) for count in counts] == [1, 1]
