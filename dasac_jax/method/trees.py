"""Functions of pytrees with many small leaves, in few operations.

Four of five leaves of a network are vectors: scales, shifts and statistics of its norms. An
operation for each of them takes no time to compute, but much to trace, to compile and to load.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def map_numbers(function: Callable[..., jax.Array], *trees: Any) -> Any:
    """`jax.tree.map` of a function of single numbers: all vectors are taken as a single one."""
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
    """(N,) float32: the sum of the squares of each leaf."""
    leaves = jax.tree.leaves(tree)
    vectors = _vectors(leaves)
    sums = [jnp.square(leaf).sum() for i, leaf in enumerate(leaves) if i not in vectors]
    found = [jnp.stack(sums)] if sums else []
    if vectors:
        squares = jnp.square(jnp.concatenate([leaves[i] for i in vectors]))
        owner = np.repeat(np.arange(len(vectors)), [leaves[i].size for i in vectors])
        found.append(jax.ops.segment_sum(squares, owner, len(vectors), indices_are_sorted=True))
    return jnp.concatenate(found)


def _vectors(leaves):
    """The places of those that can be joined."""
    return [i for i, leaf in enumerate(leaves) if leaf.ndim == 1 and leaf.dtype == jnp.float32]
