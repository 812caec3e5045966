"""The vision transformer: its sizes, its attention, what it keeps for the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.models import ARCHITECTURES, attention, create_model, dinov2
from dasac_jax.models.gelu import gelu

NETWORKS = [arch for arch in ARCHITECTURES if arch.startswith("dinov2")]


def shapes_of(model, size=(28, 42)):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    key = jax.random.key(0)
    return jax.eval_shape(lambda x: model.init_with_output(key, x, train=True), images)


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_weights_and_logits_are_float32_and_there_are_no_statistics(arch, dtype):
    logits, variables = shapes_of(create_model(arch, 7, dtype))
    assert set(variables) == {"params"}
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float32")}
    assert logits.shape == (2, 8, 12, 7)


@pytest.mark.parametrize(
    ("size", "logits"),
    [
        ((14, 14), (4, 4)),
        ((512, 1024), (160, 320)),
        ((1024, 1024), (320, 320)),
        ((97, 101), (28, 28)),
    ],
)
def test_any_size_becomes_whole_patches(size, logits):
    found, _ = shapes_of(create_model("dinov2_demo"), size)
    assert found.shape == (2, *logits, 19)


def test_images_smaller_than_a_patch():
    with pytest.raises(UserError, match=r"13×40 pixels is smaller than a patch of DINOv2: .* 14"):
        shapes_of(create_model("dinov2_demo"), (13, 40))


def test_the_encoder_takes_whole_patches_only():
    encoder = dinov2.Encoder(96, 1, 3)
    with pytest.raises(UserError, match="multiples of 14 pixels, not 30×28"):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 30, 28, 3)))


def test_what_is_of_batch_norm_is_refused():
    with pytest.raises(UserError, match="frozen_norm: dinov2_vits14 has no batch norm"):
        create_model("dinov2_vits14", frozen_norm=True)
    create_model("dinov2_vits14", frozen_norm=False)


@pytest.mark.parametrize(("tokens", "queries"), [(5, 1024), (50, 16)])
def test_heads_one_after_another_give_the_same(monkeypatch, tokens, queries):
    rng = np.random.default_rng(0)
    qkv = rng.normal(size=(4, 2, tokens, 3, 8)).astype(np.float32)

    def both(qkv):
        out, pull_back = jax.vjp(lambda x: attention.attention(*x), qkv[:3])
        return out, *pull_back(qkv[3])

    expected = both(qkv)
    monkeypatch.setattr(attention, "_MOST_BYTES", 0)
    monkeypatch.setattr(attention, "_QUERIES", queries)
    for ours, theirs in zip(both(qkv), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [6, 7])
def test_on_a_gpu_cudnn_gets_an_even_number_of_tokens(monkeypatch, tokens):
    """JAX refuses the gradient of others."""
    own, seen = jax.nn.dot_product_attention, []

    def on_this_cpu(query, *rest, implementation=None, **lengths):
        seen.append((query.shape[1], implementation))
        return own(query, *rest, **lengths)

    rng = np.random.default_rng(0)
    qkv = jnp.asarray(rng.normal(size=(4, 2, tokens, 3, 8)), jnp.bfloat16)

    def both(qkv):
        out, pull_back = jax.vjp(lambda x: attention.attention(*x), qkv[:3])
        return out, *pull_back(qkv[3])

    expected = both(qkv)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", on_this_cpu)
    for ours, theirs in zip(both(qkv), expected, strict=True):
        ours, theirs = (x.astype(jnp.float32) for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)
    assert seen == [(tokens + tokens % 2, "cudnn")]


def test_gelu_has_its_own_gradient():
    x = jnp.linspace(-5, 5, 41)
    ours = jax.vmap(jax.grad(gelu))(x)
    np.testing.assert_allclose(
        ours, jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, False)))(x), atol=1e-6
    )


@pytest.mark.parametrize("remat", [False, True])
def test_what_is_kept_for_the_gradient(remat):
    """In units of tokens × width for each block; JAX alone would keep more than thirty."""
    tokens, width = 100, 96

    def kept(depth):
        blocks = dinov2.Blocks(depth, 3, remat=remat)
        x = jax.ShapeDtypeStruct((1, tokens, width), jnp.float32)
        variables = jax.eval_shape(blocks.init, jax.random.key(0), x)
        backward = jax.eval_shape(lambda v, x: jax.vjp(blocks.apply, v, x)[1], variables, x)
        sizes = (leaf.size for leaf in jax.tree.leaves(backward))
        weights = sum(leaf.size for leaf in jax.tree.leaves(variables))
        return (sum(sizes) - weights) / tokens / width

    assert kept(3) - kept(2) < (2 if remat else 20)
