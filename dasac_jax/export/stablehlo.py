"""A network as a StableHLO program of a fixed size, which JAX alone runs on a CPU or a CUDA GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export, lax

from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.models import logits_at
from dasac_jax.models.platform import traced_for

Size = tuple[int, int]

PLATFORMS = ("cpu", "cuda")


def serialised(
    model: nn.Module, variables: Any, *, size: Size, outputs: tuple[str, ...], float16: bool
) -> bytes:
    """The program, as `jax.export.deserialize` reads it.

    It takes one image (1, H, W, 3) uint8 RGB and returns a dictionary: "labels" (1, H, W) uint8,
    "logits" and "probabilities" (1, H, W, C) float32, those of them that are in `outputs`. On the
    machine that trained or predicted, its results have the same bits as the package's own.

    Args:
        model: of `models.create_model`.
        variables: {"params", "batch_stats"} of numpy arrays; they become part of the program.
        size: (H, W).
        outputs: some of labels, logits, probabilities.
        float16: whether kernels and the network's layers are of float16, instead of the model's
            dtype.

    Raises:
        UserError: for a kernel that float16 cannot hold.
    """
    if float16:
        model, variables = model.clone(dtype=jnp.float16), _kernels_in_float16(variables)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    program = jax.jit(_for_both_platforms(_network(model, outputs), variables))
    return export.export(program, platforms=PLATFORMS)(images).serialize()


def _network(model: nn.Module, outputs: tuple[str, ...]) -> Callable[..., dict[str, jax.Array]]:
    def run(variables, images):
        logits = model.apply(variables, normalise(images))
        logits = logits_at(model, logits, images.shape[1:3])
        found = {
            "labels": lambda: logits.argmax(-1).astype(jnp.uint8),
            "logits": lambda: logits,
            "probabilities": lambda: jax.nn.softmax(logits),
        }
        return {name: found[name]() for name in outputs}

    return run


def _for_both_platforms(run, variables):
    """images → results, with the weights inside; layers are computed as suits each platform."""

    def on(name):
        def traced(variables, images):
            with traced_for(name):
                return run(variables, images)

        return traced

    def program(images):
        # Behind the barrier XLA computes with the weights when the program runs. What it computes
        # beforehand, while compiling, is rounded differently.
        weights = lax.optimization_barrier(jax.tree.map(jnp.asarray, variables))
        return lax.platform_dependent(weights, images, cpu=on("cpu"), cuda=on("gpu"))

    return program


def _kernels_in_float16(variables):
    """The kernels alone: batch norms are folded into them in float32."""
    flat, most = flatten_dict(variables), float(jnp.finfo(jnp.float16).max)
    for path, value in flat.items():
        if path[-1] != "kernel":
            continue
        if abs(value).max() > most:
            raise UserError(
                f"{'/'.join(path[1:])} holds numbers up to {abs(value).max():g}, float16 ends at "
                f"{most:g}: leave out --float16"
            )
        flat[path] = value.astype(jnp.float16)
    return unflatten_dict(flat)
