"""DINOv2, a vision transformer, as the encoder of a segmentation network with a light head.

The encoder is that of Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision"
(2023), as transformers' `Dinov2Model` computes it. Its modules have the names of the original code,
so that a path below `encoder/` reads like a key of the published files. The head is the one of
VFM-UDA (Englert et al., 2024): two transposed convolutions, then a 3×3 and a 1×1 convolution.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dasac_jax.errors import UserError
from dasac_jax.models import dinov2_onnx
from dasac_jax.models.anew import computed_anew, computed_once
from dasac_jax.models.attention import attention
from dasac_jax.models.gelu import gelu
from dasac_jax.models.layers import Conv, parameter, torch_default, uniform_fan_in
from dasac_jax.models.linear import EPSILON, Linear, Norm, normal_002, normalised
from dasac_jax.models.onnx_graph import Graph
from dasac_jax.models.positions import resized_positions

PATCH = 14
"""Pixels of a patch's side."""

POSITIONS = 37
"""Patches of a side at 518 pixels, the size that the published weights are made for."""


@jax.custom_vjp
def _kept(x: jax.Array) -> jax.Array:
    """`computed_once`, there and in the gradient, for which nothing is kept."""
    return computed_once(x)


_kept.defvjp(lambda x: (computed_once(x), None), lambda _, upstream: (computed_once(upstream),))


class Attention(nn.Module):
    """Every token looks at all tokens of its image: (B, N, D) → (B, N, D)."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, norm: tuple[jax.Array, jax.Array]) -> jax.Array:
        """norm: the weights of the layer norm that comes first."""
        batch, tokens, width = x.shape
        # Queries, keys and values come out of one product, in this order.
        qkv = Linear(3 * width, self.dtype, name="qkv")(x, normalised, *norm)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        out = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return Linear(width, self.dtype, name="proj")(out.reshape(batch, tokens, width))


class MLP(nn.Module):
    """Two linear layers around an exact GELU, four times as wide between them."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, norm: tuple[jax.Array, jax.Array]) -> jax.Array:
        """norm: the weights of the layer norm that comes first."""
        hidden = Linear(4 * x.shape[-1], self.dtype, name="fc1")(x, normalised, *norm)
        return Linear(x.shape[-1], self.dtype, name="fc2")(hidden, gelu)


class LayerScale(nn.Module):
    """A factor for each channel: (…, D) → (…, D) float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * parameter(self, "gamma", nn.initializers.ones, x.shape[-1:])


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to its input: (B, N, D) float32.

    The sums stay in float32 whatever the network computes in, as under PyTorch's autocast.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = Norm(name="norm1")(x.shape[-1])
        y = Attention(self.heads, self.dtype, name="attn")(x, norm)
        x = _kept(x + LayerScale(name="ls1")(y))
        y = MLP(self.dtype, name="mlp")(x, Norm(name="norm2")(x.shape[-1]))
        return _kept(x + LayerScale(name="ls2")(y))


class Blocks(nn.Module):
    """A sequence of blocks: (B, N, D) → (B, N, D). With `remat` only their inputs are kept."""

    depth: int
    heads: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Equal blocks are traced once, which makes starts faster.
        block = nn.jit(nn.remat(Block) if self.remat else Block)
        for i in range(self.depth):
            x = block(self.heads, self.dtype, name=str(i))(x)
            # Costs nothing unless a caller asks for the collection "intermediates".
            self.sow("intermediates", f"after_{i}", x)
        return x


class Encoder(nn.Module):
    """DINOv2: images (B, H, W, 3) → patch tokens (B, H/14, W/14, D) and class token (B, D)."""

    width: int
    depth: int
    heads: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """images: float32, normalised as for ImageNet; sides are multiples of 14.

        Both results are float32, behind the last norm. Raises UserError for other sizes.
        """
        height, width = images.shape[1:3]
        if height % PATCH or width % PATCH:
            raise UserError(
                f"the encoder takes images whose sides are multiples of {PATCH} pixels, not "
                f"{height}×{width}: resize them"
            )
        x = self._embedded(images)
        x = Blocks(self.depth, self.heads, self.dtype, self.remat, name="blocks")(x)
        x = computed_anew(normalised, x, *Norm(name="norm")(self.width))
        return x[:, 1:].reshape(len(x), height // PATCH, width // PATCH, -1), x[:, 0]

    def _embedded(self, images: jax.Array) -> jax.Array:
        """The class token and the patches, with their positions: (B, 1 + H/14 · W/14, D)."""
        batch, height, width, _ = images.shape
        patches = Patches(self.width, self.dtype, name="patch_embed")(images)
        own = partial(parameter, self)
        first = own("cls_token", normal_002, (1, 1, self.width))
        # Only DINOv2's own training uses it; it is kept for writing the files again.
        own("mask_token", nn.initializers.zeros, (1, self.width))
        positions = own("pos_embed", normal_002, (1, 1 + POSITIONS**2, self.width))
        grid = positions[0, 1:].reshape(POSITIONS, POSITIONS, self.width)
        grid = resized_positions(grid, (height // PATCH, width // PATCH))
        patches = patches.astype(jnp.float32) + grid.reshape(-1, self.width)
        first = jnp.broadcast_to(first + positions[:, :1], (batch, 1, self.width))
        return jnp.concatenate([first, patches], axis=1)


class Patches(nn.Module):
    """A 14×14 convolution of stride 14: (B, H, W, 3) → (B, H/14 · W/14, features)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        batch, height, width, channels = images.shape
        kernel = parameter(self, "kernel", normal_002, (PATCH, PATCH, channels, self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        # Patches do not overlap, so that the convolution is one matrix product.
        x = images.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, PATCH * PATCH * channels)
        kernel = kernel.reshape(-1, self.features)
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Doubled(nn.Module):
    """A 2×2 transposed convolution of stride 2: (B, h, w, D) → (B, 2h, 2w, features)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        init = uniform_fan_in(4 * self.features)  # PyTorch's default for this layer
        kernel = parameter(self, "kernel", init, (2, 2, channels, self.features))
        # Its results do not overlap either: a product gives each pixel's four successors.
        kernel = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        x = x.reshape(-1, channels).astype(self.dtype) @ kernel.astype(self.dtype)
        x = x.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, 2 * height, 2 * width, self.features)


class Head(nn.Module):
    """Patch tokens (B, h, w, D) → logits (B, 4h, 4w, C) float32."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = Doubled(width // 2, self.dtype, name="up1")(x)
        x = gelu(computed_anew(normalised, x, *Norm(name="norm1")(width // 2)).astype(self.dtype))
        x = Doubled(width // 4, self.dtype, name="up2")(x)
        x = computed_anew(normalised, x, *Norm(name="norm2")(width // 4))
        conv = partial(Conv, dtype=self.dtype)
        x = conv(width // 4, 3, kernel_init=torch_default, name="conv")(x)
        x = computed_anew(normalised, x, *Norm(name="norm3")(width // 4))
        last = conv(self.num_classes, 1, kernel_init=nn.initializers.normal(0.1), name="out")
        return last(x).astype(jnp.float32)


class DINOv2Segmenter(nn.Module):
    """DINOv2 with the light head. It has no batch norm, and so no running statistics."""

    width: int
    depth: int
    heads: int
    num_classes: int = 19
    dtype: Any = jnp.float32
    remat: bool = False

    # Logits are of pixels' areas, not of grid points from corner to corner: see `models.logits_at`.
    align_corners = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """(B, H, W, 3) → logits (B, 4h, 4w, C) float32, of an image resized to (14h, 14w).

        h = ⌊1.1·H⌋ // 14, and w likewise: 512×1024 becomes 560×1120, 40×80 patches and 160×320
        logits. Raises UserError for images of less than 14 pixels a side.
        """
        del train, dropout_keys  # neither batch norm nor dropout
        images = resized_to_patches(images)
        encoder = Encoder(
            self.width, self.depth, self.heads, self.dtype, self.remat, name="encoder"
        )
        tokens, _ = encoder(images)
        head = nn.remat(Head) if self.remat else Head
        return head(self.num_classes, self.dtype, name="head")(tokens)

    @nn.nowrap
    def onnx(self, graph: Graph, images: str) -> str:
        """The network as ONNX operations: images (B, 3, H, W) → logits (B, C, 4h, 4w)."""
        images, grid = dinov2_onnx.resized_to_patches(graph, images, PATCH)
        x = dinov2_onnx.embedded(graph, images, grid, "encoder", patch=PATCH, positions=POSITIONS)
        for i in range(self.depth):
            x = dinov2_onnx.block(graph, x, f"encoder/blocks/{i}", self.heads, EPSILON)
        x = dinov2_onnx.norm(graph, x, "encoder/norm", EPSILON)
        x = dinov2_onnx.patches_alone(graph, x, "encoder")
        return dinov2_onnx.head(graph, x, grid, "head", EPSILON)


def patches_of(side: int) -> int:
    """How many patches an image side of so many pixels becomes: ⌊1.1 · side⌋ // 14."""
    return side * 11 // 10 // PATCH


def resized_to_patches(images: jax.Array) -> jax.Array:
    """Images (B, H, W, 3) resized to whole patches, bilinear, corners not aligned.

    Raises UserError where a side is below 14 pixels.
    """
    batch, height, width, channels = images.shape
    if min(height, width) < PATCH:
        raise UserError(
            f"an image of {height}×{width} pixels is smaller than a patch of DINOv2: "
            f"give at least {PATCH} pixels a side"
        )
    size = (PATCH * patches_of(height), PATCH * patches_of(width))
    if size == (height, width):
        return images
    return jax.image.resize(images, (batch, *size, channels), "linear", antialias=False)
