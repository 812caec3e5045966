"""Gradient accumulation: a device's batch is taken in equal microbatches, which saves memory.

The results are those of the whole batch up to rounding, since a mean over the batch is the mean of
the means over equally large microbatches.
"""

from collections.abc import Callable
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dasac_jax.errors import UserError

Metrics = dict[str, jax.Array]


def check(parts: int, source_rows: int, views: int) -> None:
    """Raise UserError, with the numbers that fit, where a device's batch has no equal parts."""
    if source_rows % parts or views % parts:
        common = gcd(source_rows, views)
        fitting = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise UserError(
            f"config.adapt.accumulate is {parts}: {source_rows} source images and {views} target "
            f"views on a device make no {parts} equal parts; numbers that do: {fitting}"
        )


def map_in_parts(function: Callable[[jax.Array], jax.Array], items: jax.Array, parts: int):
    """`function`, which treats every item by itself, on items (N, …) → (N, …)."""
    if parts == 1:
        return function(items)
    results = lax.map(function, _deal(items, parts))
    return results.reshape(len(items), *results.shape[2:])


def gradient_in_parts(
    loss: Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, Metrics]],
    params: Any,
    batch: dict[str, jax.Array],
    parts: int,
) -> tuple[Any, Metrics]:
    """The gradient of `loss` with respect to `params`, and its metrics, averaged over the parts.

    `loss(params, batch)` returns (scalar, metrics), all of them means over the batch's items.
    batch: arrays (N, …); N may differ between arrays, but is a multiple of `parts`.
    """
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(params, batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, gradient(params, part)), None

    batch = {name: _deal(items, parts) for name, items in batch.items()}
    one = jax.eval_shape(gradient, params, {name: items[0] for name, items in batch.items()})
    begin = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one)
    total, _ = lax.scan(add, begin, batch)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def _deal(items, parts):
    """(N, …) → (parts, N / parts, …)."""
    return items.reshape(parts, len(items) // parts, *items.shape[1:])
