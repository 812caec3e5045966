"""Functions of whole pytrees, such as a network's weights, in few operations.

Four of five arrays in a network are vectors: scales, shifts and statistics of its norms. An
operation for each of them takes no time to compute, but much to trace, to compile and to load.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def map_leaves(function: Callable[..., jax.Array], *trees: Any) -> Any:
    """`jax.tree.map` of an elementwise function, called once for all float32 vectors together."""
    leaves, structures = zip(*(jax.tree.flatten(tree) for tree in trees), strict=True)
    vectors = _vectors(leaves[0])
    out = [
        None if i in vectors else function(*row) for i, row in enumerate(zip(*leaves, strict=True))
    ]
    if vectors:
        joined = function(*(jnp.concatenate([tree[i] for i in vectors]) for tree in leaves))
        ends = np.cumsum([leaves[0][i].size for i in vectors])[:-1]
        for i, part in zip(vectors, jnp.split(joined, ends), strict=True):
            out[i] = part
    return jax.tree.unflatten(structures[0], out)


def square_norms(tree: Any) -> jax.Array:
    """(N,) float32: the sum of the squares of each of the N arrays, in no fixed order."""
    leaves = jax.tree.leaves(tree)
    vectors = _vectors(leaves)
    sums = [jnp.square(leaf).sum() for i, leaf in enumerate(leaves) if i not in vectors]
    found = [jnp.stack(sums)] if sums else []
    if vectors:
        squares = jnp.square(jnp.concatenate([leaves[i] for i in vectors]))
        owner = np.repeat(np.arange(len(vectors)), [leaves[i].size for i in vectors])
        found.append(jax.ops.segment_sum(squares, owner, len(vectors), indices_are_sorted=True))
    return jnp.concatenate(found)


def is_finite(*trees: Any) -> jax.Array:
    """() bool: whether every number of these pytrees is finite, and its square too.

    The square because Adam's second moment is one: it would never come down from infinity.
    """
    return jnp.isfinite(square_norms(trees)).all()


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """The pytree `new` where `condition` () bool holds, else `old`, bit for bit."""
    return map_leaves(lambda a, b: jnp.where(condition, a, b), new, old)


def _vectors(leaves):
    """The indices of the leaves that can be joined."""
    return [i for i, leaf in enumerate(leaves) if leaf.ndim == 1 and leaf.dtype == jnp.float32]
