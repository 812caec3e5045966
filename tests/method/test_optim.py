"""The four parameter groups, and SGD and Adam by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.interop.names import flax_path
from dasac_jax.method import optim

STATE_DICTS = Path(__file__).parents[1] / "golden"
RATE, DECAY = 1e-2, 5e-4
PARAMS = {
    "conv1/kernel": (1, DECAY),
    "layer4/2/bn3/scale": (1, DECAY),
    "bn1/bias": (2, 0),
    "features/40/bias": (2, 0),
    "block3/34/kernel": (1, DECAY),
    "layer5/3/kernel": (10, DECAY),
    "layer5/3/bias": (20, 0),
    "classifier/0/bias": (20, 0),
    "features/42/kernel": (10, DECAY),
    "features/44/bias": (20, 0),
    "vgg_head/0/kernel": (10, DECAY),
    "vgg_head/1/scale": (10, DECAY),
    "vgg_head/5/bias": (20, 0),
    "score_pool4/kernel": (10, DECAY),
    "score_pool3/bias": (20, 0),
}


def test_rate_and_decay_of_every_kind_of_parameter():
    for path, (factor, decay) in PARAMS.items():
        group = optim.GROUPS[optim.group_of(path)]
        assert (group["rate"], group["decay"]) == (factor, bool(decay)), path


@pytest.mark.parametrize(
    ("arch", "new"),
    [
        ("deeplabv2_resnet101", ("layer5",)),
        ("deeplabv2_vgg16_bn", ("classifier", "features/42", "features/44")),
        ("fcn_vgg16_bn", ("vgg_head", "score_pool4", "score_pool3")),
    ],
)
def test_new_layers_of_the_networks(arch, new):
    shapes = json.loads((STATE_DICTS / f"state_dict_{arch}.json").read_text())
    shapes = {n: s for n, s in shapes.items() if not n.endswith("num_batches_tracked")}
    leaves = [flax_path(arch, name, len(shape)) for name, shape in shapes.items()]
    paths = ["/".join(path) for collection, path in leaves if collection == "params"]
    found = {path for path in paths if optim.group_of(path).startswith("new")}
    assert found == {path for path in paths if path.startswith(tuple(f"{n}/" for n in new))}
    assert {path.rsplit("/", 1)[0].split("/")[0] for path in found} == {
        n.split("/")[0] for n in new
    }


def run(kind, steps=5, **options):
    """(parameters after each step, gradients) of a training on random gradients, by path."""
    rng = np.random.default_rng(0)
    draw = lambda: {path: rng.normal(size=(3, 2)).astype(np.float32) for path in PARAMS}  # noqa: E731
    optimiser = optim.create(RATE, kind=kind, weight_decay=DECAY, **options)
    params, grads = draw(), [draw() for _ in range(steps)]
    tree = unflatten_dict(params, sep="/")
    opt_state, history = optimiser.init(tree), [params]
    for grad in grads:
        updates, opt_state = optimiser.update(unflatten_dict(grad, sep="/"), opt_state, tree)
        tree = jax.tree.map(jnp.add, tree, updates)
        history.append({path: np.asarray(x) for path, x in flatten_dict(tree, sep="/").items()})
    return history, grads


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_sgd_decays_before_the_momentum(momentum):
    history, grads = run("sgd", momentum=momentum)
    for path, (factor, decay) in PARAMS.items():
        value, buffer = history[0][path].astype(np.float64), 0
        for grad, after in zip(grads, history[1:], strict=True):
            buffer = momentum * buffer + grad[path] + decay * value
            value = value - RATE * factor * buffer
            np.testing.assert_allclose(after[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


def test_adam_decays_before_its_moments():
    history, grads = run("adam")
    for path, (factor, decay) in PARAMS.items():
        value, first, second = history[0][path].astype(np.float64), 0, 0
        for i, (grad, after) in enumerate(zip(grads, history[1:], strict=True), start=1):
            g = grad[path] + decay * value
            first, second = 0.5 * first + 0.5 * g, 0.999 * second + 0.001 * g**2
            unbiased = np.sqrt(second / (1 - 0.999**i)) + 1e-8
            value = value - RATE * factor * first / (1 - 0.5**i) / unbiased
            np.testing.assert_allclose(after[path], value, rtol=2e-4, atol=1e-5, err_msg=path)


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind is 'rmsprop'; choose sgd, adam or adamw"):
        optim.create(RATE, kind="rmsprop")
