"""SGD (or Adam) with the four parameter groups: weights and biases, of old and of new layers."""

import re
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.models import NEW_LAYERS

# Batch-norm scales count as weights, batch-norm shifts as biases.
GROUPS = {
    "weights": {"rate": 1.0, "decay": True},
    "biases": {"rate": 2.0, "decay": False},
    "new weights": {"rate": 10.0, "decay": True},
    "new biases": {"rate": 20.0, "decay": False},
}


def group_of(path: str) -> str:
    """The group of a parameter path such as layer5/0/kernel."""
    kind = "biases" if path.endswith("/bias") else "weights"
    return f"new {kind}" if re.match(NEW_LAYERS, path) else kind


def groups(params: Any) -> Any:
    """The pytree of group names of a parameter pytree."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({path: group_of(path) for path in flat}, sep="/")


def create(
    learning_rate: float,
    *,
    kind: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """The optimiser of both stages, with PyTorch's arithmetic.

    Gradient + decay · parameter, then the momentum buffer (Adam: its moments, β 0.5 and 0.999),
    then × learning rate × the group's factor. The rate is constant.
    """
    if kind not in ("sgd", "adam"):
        raise ValueError(f"kind is {kind!r}; choose sgd or adam")

    def decayed(params):
        return jax.tree.map(lambda group: GROUPS[group]["decay"], groups(params))

    def scale_by_group(updates, params):
        return jax.tree.map(
            lambda group, update: -learning_rate * GROUPS[group]["rate"] * update,
            groups(params),
            updates,
        )

    accumulate = (
        optax.trace(decay=momentum)
        if kind == "sgd"
        else optax.scale_by_adam(b1=0.5, b2=0.999, eps=1e-8)
    )
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        accumulate,
        optax.stateless(scale_by_group),
    )
