"""The encoder beside transformers' and timm's, with random weights; its gradients; the head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax import interop
from dasac_jax.interop import convert, dinov2_names, load_torch_file
from dasac_jax.interop.contents import recognise
from dasac_jax.models import create_model, dinov2, logits_at
from dasac_jax.models.positions import resized_positions

pytestmark = pytest.mark.torch
ARCH = "dinov2_vits14"
# Fewer patches than positions, not square; more of them than positions on one side.
SIZES = [(28, 56), (70, 42), (14, 560)]


@pytest.fixture(scope="module")
def theirs(torch, transformers):
    """transformers' model with random weights that no layer is silent with."""
    torch.manual_seed(0)
    options = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**options, image_size=518)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 1.0 if "position" in name or "token" in name else 0.05
            parameter.add_(spread * torch.randn_like(parameter))
            if name.endswith("lambda1"):
                parameter.uniform_(0.05, 0.3)
    return model


@pytest.fixture(scope="module")
def converted(theirs, tmp_path_factory):
    """What the converter makes of the file that transformers writes."""
    folder = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(folder)
    loaded = convert.safetensors_file.load(folder / "model.safetensors")
    return recognise(loaded)


@pytest.fixture(scope="module")
def ours(converted):
    model = create_model(ARCH)
    params = interop.variables_from_state_dict(ARCH, converted.student)["params"]["encoder"]
    return dinov2.Encoder(model.width, model.depth, model.heads), {"params": params}


def images_of(size, batch=2):
    return np.random.default_rng(sum(size)).normal(size=(batch, *size, 3)).astype(np.float32)


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_every_tensor_of_the_file_is_taken(theirs, converted):
    assert (converted.arch, converted.kind, converted.dropped) == (ARCH, "dinov2", {})
    numbers = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(array.size for array in converted.student.values()) == numbers


@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_transformers(torch, theirs, ours, size):
    encoder, variables = ours
    images = images_of(size)
    with torch.no_grad():
        state = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    tokens, first = jax.jit(encoder.apply)(variables, images)
    assert tokens.shape == (2, size[0] // 14, size[1] // 14, 384)
    assert relative(np.asarray(tokens).reshape(2, -1, 384), state[:, 1:]) < 1e-5
    assert relative(first, state[:, 0]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_timm(torch, timm, converted, ours, size, tmp_path):
    """timm interpolates positions in another way: it gets ours, and does all the rest."""
    encoder, variables = ours
    model = timm.create_model("vit_small_patch14_dinov2", img_size=size, num_classes=0).eval()
    weights = {n: torch.tensor(x) for n, x in converted.student.items() if n != "mask_token"}
    grid = weights["pos_embed"][0, 1:].reshape(37, 37, 384).numpy()
    grid = resized_positions(jnp.asarray(grid), (size[0] // 14, size[1] // 14))
    grid = torch.tensor(np.asarray(grid).reshape(1, -1, 384))
    model.load_state_dict(
        weights | {"pos_embed": torch.cat([weights["pos_embed"][:, :1], grid], 1)}
    )
    images = images_of(size)
    with torch.no_grad():
        state = model.forward_features(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    tokens, first = jax.jit(encoder.apply)(variables, images)
    assert relative(np.asarray(tokens).reshape(2, -1, 384), state[:, 1:]) < 1e-5
    assert relative(first, state[:, 0]) < 1e-5


def test_files_of_timm_and_the_original_are_told(torch, timm, converted, tmp_path):
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    found = recognise(load_torch_file(tmp_path / "timm.pth"))
    assert (found.arch, found.kind, list(found.student)) == (
        ARCH,
        "dinov2",
        list(converted.student),
    )
    original = dinov2_names.to_transformers(found.student)
    np.testing.assert_array_equal(
        original["encoder.layer.3.attention.attention.key.weight"],
        model.state_dict()["blocks.3.attn.qkv.weight"][384:768],
    )


def test_gradients_through_the_whole_encoder_are_pytorchs(torch, theirs, ours, converted):
    encoder, variables = ours
    images = images_of((28, 42))
    upstream = np.random.default_rng(3).normal(size=(2, 7, 384)).astype(np.float32)
    theirs.zero_grad()
    state = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state
    (state * torch.tensor(upstream)).sum().backward()

    def loss(variables):
        tokens, first = encoder.apply(variables, images)
        state = jnp.concatenate([first[:, None], tokens.reshape(2, 6, 384)], axis=1)
        return (state * upstream).sum()

    gradient = jax.jit(jax.grad(loss))(variables)["params"]
    found = dinov2_names.state_dict({"params": {"encoder": gradient}})
    expected = dinov2_names.from_transformers(
        {
            name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
            for name, p in theirs.named_parameters()
        }
    )
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if name == "mask_token":
            assert not found[name].any()
            continue
        # Of the keys' biases the gradient is 0: the softmax does not see them.
        parts = [slice(0, 384), slice(768, None)] if name.endswith("qkv.bias") else [slice(None)]
        for part in parts:
            assert relative(found[name][part], array[part]) < 1e-4, name


def test_the_head_and_its_resizing_are_pytorchs(torch):
    from torch import nn

    size, rng = (45, 70), np.random.default_rng(0)
    images, tokens = images_of(size), rng.normal(size=(2, 3, 5, 48)).astype(np.float32)
    head = dinov2.Head(5)
    shapes = jax.eval_shape(head.init, jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    arrays = dinov2_names.state_dict({"params": {"head": params}})
    arrays = {name: torch.tensor(np.array(array)) for name, array in arrays.items()}

    resized = nn.functional.interpolate(
        torch.tensor(images.transpose(0, 3, 1, 2)), size=(42, 70), mode="bilinear"
    )
    found = dinov2.resized_to_patches(jnp.asarray(images))
    assert relative(found, resized.permute(0, 2, 3, 1)) < 1e-6

    def norm(x, name):
        own = arrays[f"head.{name}.weight"], arrays[f"head.{name}.bias"]
        x = nn.functional.layer_norm(x.permute(0, 2, 3, 1), own[0].shape, *own, 1e-6)
        return x.permute(0, 3, 1, 2)

    x = torch.tensor(tokens.transpose(0, 3, 1, 2))
    x = nn.functional.conv_transpose2d(x, arrays["head.up1.weight"], stride=2)
    x = nn.functional.gelu(norm(x, "norm1"))
    x = norm(nn.functional.conv_transpose2d(x, arrays["head.up2.weight"], stride=2), "norm2")
    x = norm(nn.functional.conv2d(x, arrays["head.conv.weight"], padding=1), "norm3")
    x = nn.functional.conv2d(x, arrays["head.out.weight"])
    logits = jax.jit(head.apply)({"params": params}, tokens)
    assert relative(logits, x.permute(0, 2, 3, 1)) < 1e-5

    upsampled = nn.functional.interpolate(x, size=size, mode="bilinear")
    model = create_model("dinov2_demo", 5)
    assert relative(logits_at(model, logits, size), upsampled.permute(0, 2, 3, 1)) < 1e-5
