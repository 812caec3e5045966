"""Functions of whole pytrees, such as a network's weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def square_norms(tree: Any) -> jax.Array:
    """(N,) float32: the sum of the squares of each of the N arrays, in no fixed order.

    Four of five arrays in a network are vectors: scales, shifts and statistics of its norms. They
    are joined, since a sum for each of them would take no time to compute, but much to compile.
    """
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
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _vectors(leaves):
    """The indices of the leaves that can be joined."""
    return [i for i, leaf in enumerate(leaves) if leaf.ndim == 1 and leaf.dtype == jnp.float32]
