"""DINOv2 with the light head in PyTorch: transformers' encoder, the head in plain PyTorch."""

import re

import torch
from torch import nn
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model

from benchmarks import problem

PATCH = 14
# Width, depth, heads.
SIZES = {
    "dinov2_vits14": (384, 12, 6),
    "dinov2_vitb14": (768, 12, 12),
    "dinov2_vitl14": (1024, 24, 16),
    "dinov2_demo": (96, 4, 3),
}
# From transformers' names in memory to the original ones.
_NAMES = (
    (r"^encoder\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^encoder\.embeddings\.", ""),
    (r"^encoder\.layernorm\.", "norm."),
    (r"^encoder\.encoder\.layer\.", "blocks."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Head(nn.Module):
    """Tokens (B, D, h, w) → logits (B, C, 4h, 4w)."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.up1 = nn.ConvTranspose2d(width, width // 2, 2, 2, bias=False)
        self.norm1 = ChannelNorm(width // 2, 1e-6)
        self.up2 = nn.ConvTranspose2d(width // 2, width // 4, 2, 2, bias=False)
        self.norm2 = ChannelNorm(width // 4, 1e-6)
        self.conv = nn.Conv2d(width // 4, width // 4, 3, padding=1, bias=False)
        self.norm3 = ChannelNorm(width // 4, 1e-6)
        self.out = nn.Conv2d(width // 4, classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, h, w) → (B, C, 4h, 4w)."""
        x = functional.gelu(self.norm1(self.up1(x)))
        return self.out(self.norm3(self.conv(self.norm2(self.up2(x)))))


class DINOv2(nn.Module):
    """The encoder with the head, on an image resized by 1.1 to whole patches."""

    align_corners = False

    def __init__(self, classes: int, width: int, depth: int, heads: int):
        super().__init__()
        self.encoder = Dinov2Model(
            Dinov2Config(
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                image_size=37 * PATCH,
            )
        )
        self.head = Head(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C, 4h, 4w)."""
        height, width = (side * 11 // 10 // PATCH for side in x.shape[2:])
        x = functional.interpolate(x, (height * PATCH, width * PATCH), mode="bilinear")
        tokens = self.encoder(x).last_hidden_state[:, 1:]
        return self.head(tokens.transpose(1, 2).reshape(len(x), -1, height, width))

    def load_problem(self) -> None:
        """Take the problem's weights, which are functions of the original names."""
        shapes = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        self.load_state_dict({name: torch.tensor(_weight(name, s)) for name, s in shapes.items()})


def _weight(name, shape):
    part = re.fullmatch(r"encoder\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.(\w+)", name)
    if part:
        whole = problem.weight(f"blocks.{part[1]}.attn.qkv.{part[3]}", (3 * shape[0], *shape[1:]))
        begin = "qkv".index(part[2]) * shape[0]
        return whole[begin : begin + shape[0]]
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return problem.weight(name, shape)
