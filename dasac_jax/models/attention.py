"""Attention between all tokens of an image, in the way that is best on each device."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from dasac_jax.models.platform import platform

# Scores of all pairs of tokens that are held at once, in bytes; and queries taken together where
# one head alone has more.
_MOST_BYTES = 1 << 24
_QUERIES = 1024


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q·k / √width)·v over the tokens of each image: three times (B, N, heads, width).

    On a GPU in bfloat16 or float16 this is cuDNN's function, which never writes the N × N scores to
    memory. Elsewhere the heads are taken one after another where their scores are large, and the
    scores are computed anew for the gradient.
    """
    # For a GPU elsewhere cuDNN cannot be taken: JAX asks the library here which version it is.
    here = platform() == jax.default_backend() == "gpu"
    if here and query.dtype in (jnp.bfloat16, jnp.float16):
        return _by_cudnn(query, key, value)
    if query.dtype == jnp.float16:
        # JAX asks XLA for a product of float16 that its CPUs do not have.
        query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
        return attention(query, key, value).astype(jnp.float16)
    batch, tokens, heads, _ = query.shape
    if 4 * batch * heads * tokens**2 <= _MOST_BYTES:
        return jax.nn.dot_product_attention(query, key, value)
    return _one_after_another(query, key, value)


def _by_cudnn(query, key, value):
    # JAX refuses odd numbers of tokens where there is a gradient. It means to do so only where a
    # bias is added to the scores, but takes its stand-in for "no bias" for one. With a class token
    # the number is odd mostly: so one token more, which nothing looks at.
    batch, tokens, *_ = query.shape
    attend = partial(jax.nn.dot_product_attention, implementation="cudnn")
    if tokens % 2 == 0:
        return attend(query, key, value)
    padded = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jnp.full(batch, tokens, jnp.int32)
    out = attend(*padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    return out[:, :tokens]


def _one_after_another(query, key, value):
    batch, tokens, heads, width = query.shape
    # A head's tokens side by side: (B · heads, N, width).
    by_head = [x.transpose(0, 2, 1, 3).reshape(-1, tokens, width) for x in (query, key, value)]
    out = lax.map(_of_head, by_head)
    return out.reshape(batch, heads, tokens, width).transpose(0, 2, 1, 3)


def _of_head(qkv):
    """Attention of one head: three times (N, width) → (N, width)."""
    query, key, value = (x[None, :, None] for x in qkv)
    tokens = query.shape[1]

    # A loop's body is compiled apart. So XLA cannot find that the gradient computes the scores
    # again, which on CPUs would make it keep them.
    @jax.checkpoint
    def attend(queries):
        return jax.nn.dot_product_attention(queries, key, value)

    parts = math.ceil(tokens / _QUERIES)
    if parts == 1:
        return attend(query)[0, :, 0]
    size = math.ceil(tokens / parts)
    padded = jnp.pad(query[0, :, 0], ((0, parts * size - tokens), (0, 0)))
    out = lax.map(attend, padded.reshape(parts, 1, size, 1, -1))
    return out.reshape(parts * size, -1)[:tokens]
