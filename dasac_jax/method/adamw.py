"""AdamW with a warm-up and a linear decay, and a rate for each layer: for vision transformers."""

import re
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.models import NEW_LAYERS

WARMUP_BEGIN = 1e-3
"""The share of the learning rate that the warm-up begins with."""

# What parameter paths begin with.
_BLOCK = re.compile(r"^encoder/blocks/(\d+)/")
_BEFORE_BLOCKS = re.compile(r"^encoder/(cls_token|pos_embed|patch_embed/)")
# DINOv2's own training alone has a gradient for it.
_KEPT = re.compile(r"^encoder/mask_token$")


def share_of(path: str, depth: int, encoder_rate: float, layer_decay: float) -> float:
    """The share of the learning rate that a parameter such as encoder/norm/bias is trained with.

    New layers have all of it, old ones `encoder_rate`; in an encoder of `depth` blocks each layer
    from the end towards the image has `layer_decay` times the share of the one behind it.
    """
    if re.match(NEW_LAYERS, path):
        return 1.0
    if _KEPT.match(path):
        return 0.0
    block = _BLOCK.match(path)
    if block:
        return encoder_rate * layer_decay ** (depth - int(block[1]))
    layers = depth + 1 if _BEFORE_BLOCKS.match(path) else 0
    return encoder_rate * layer_decay**layers


def shares(params: Any, encoder_rate: float, layer_decay: float) -> Any:
    """The pytree of the shares of a parameter pytree."""
    flat = flatten_dict(params, sep="/")
    blocks = {int(found[1]) for found in map(_BLOCK.match, flat) if found}
    found = {path: share_of(path, len(blocks), encoder_rate, layer_decay) for path in flat}
    return unflatten_dict(found, sep="/")


def schedule(learning_rate: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """The rate by step: from a thousandth up to `learning_rate`, then down to 0 at `total_steps`.

    Both straight lines. With warmup_steps 0 there is no way up, with total_steps 0 none down.
    """
    begin = WARMUP_BEGIN * learning_rate
    up = optax.linear_schedule(begin, learning_rate, warmup_steps)
    down = optax.constant_schedule(learning_rate)
    if total_steps:
        down = optax.linear_schedule(learning_rate, 0.0, max(1, total_steps - warmup_steps))
    return optax.join_schedules([up, down], [warmup_steps]) if warmup_steps else down


def create(
    learning_rate: float,
    *,
    weight_decay: float = 0.01,
    warmup_steps: int = 0,
    total_steps: int = 0,
    encoder_rate: float = 0.1,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW as `torch.optim.AdamW` has it: β 0.9 and 0.999, ε 1e-8, decay apart from the gradient.

    All parameters decay, each by the rate that it is trained with (`share_of`).
    """

    def scale_by_share(updates, params):
        factors = shares(params, encoder_rate, layer_decay)
        return jax.tree.map(lambda factor, update: factor * update, factors, updates)

    return optax.chain(
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(weight_decay),
        optax.stateless(scale_by_share),
        optax.scale_by_learning_rate(schedule(learning_rate, warmup_steps, total_steps)),
    )
