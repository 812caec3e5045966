"""SGD (or Adam) with the four parameter groups: weights and biases, of old and of new layers.

Vision transformers are trained by AdamW instead, with groups and a schedule of its own.
"""

import re
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.method import adamw
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
    total_steps: int = 0,
    warmup_steps: int = 0,
    encoder_rate: float = 0.1,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """The optimiser of both stages, with PyTorch's arithmetic.

    Gradient + decay · parameter, then the momentum buffer (Adam: its moments, β 0.5 and 0.999),
    then × learning rate × the group's factor. The rate is constant. The kind "adamw" is
    `adamw.create`, which alone the last four options are of.
    """
    if kind == "adamw":
        return adamw.create(
            learning_rate,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            encoder_rate=encoder_rate,
            layer_decay=layer_decay,
        )
    if kind not in ("sgd", "adam"):
        raise ValueError(f"kind is {kind!r}; choose sgd, adam or adamw")

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
