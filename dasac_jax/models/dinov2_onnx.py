"""`dasac_jax.models.dinov2` as ONNX operations. Tokens are (B, N, D), images (B, C, H, W).

What layers of float16 hand on to sums and norms is float32, as in the network itself.
"""

from __future__ import annotations

import numpy as np

from dasac_jax.models import onnx_layers
from dasac_jax.models.onnx_graph import Graph


def resized_to_patches(graph: Graph, images: str, patch: int) -> tuple[str, str]:
    """As `dinov2.resized_to_patches`: the images, and the name of (h, w), the grid of patches."""
    grid = onnx_layers.size_of(graph, images)
    for op, number in (("Mul", 11), ("Div", 10), ("Div", patch)):
        by = graph.array("grid/number", np.int64(number))
        grid = graph.add(op, grid, by, name="grid")
    size = graph.add("Mul", grid, graph.array("patch", np.int64(patch)), name="grid/pixels")
    return onnx_layers.upsample(graph, images, size, align_corners=False), grid


def embedded(graph: Graph, images: str, grid: str, path: str, *, patch: int, positions: int) -> str:
    """As `Encoder._embedded`: images → the class token and the patches, with their positions."""
    kernel = graph.variable(f"params/{path}/patch_embed/kernel").transpose(3, 2, 0, 1)
    x = graph.add(
        "Conv", graph.lowered(images), graph.weight(f"{path}/patch_embed/kernel", kernel),
        graph.weight(f"{path}/patch_embed/bias", graph.variable(f"params/{path}/patch_embed/bias")),
        name=f"{path}/patch_embed", kernel_shape=[patch] * 2, strides=[patch] * 2,
    )  # fmt: skip
    graph.variable(f"params/{path}/mask_token")  # only DINOv2's own training uses it
    table = graph.variable(f"params/{path}/pos_embed")
    first = graph.variable(f"params/{path}/cls_token") + table[:, :1]
    width = table.shape[-1]
    table = table[:, 1:].reshape(1, positions, positions, width).transpose(0, 3, 1, 2)
    sizes = graph.add(
        "Concat", graph.array(f"{path}/pos_embed/channels", np.array([1, width], np.int64)), grid,
        name=f"{path}/pos_embed/shape", axis=0,
    )  # fmt: skip
    places = graph.add(
        "Resize", graph.array(f"{path}/pos_embed", table), "", "", sizes,
        name=f"{path}/pos_embed/resized", mode="cubic", cubic_coeff_a=-0.75,
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    x = graph.add("Add", graph.float32(x), places, name=f"{path}/placed")
    x = _tokens(graph, x)
    batch = graph.add("Shape", images, name="images/batch", end=1)
    rest = graph.array(f"{path}/cls_token/rest", np.array([1, width], np.int64))
    shape = graph.add("Concat", batch, rest, name=f"{path}/cls_token/shape", axis=0)
    first = graph.add(
        "Expand", graph.array(f"{path}/cls_token", first), shape, name=f"{path}/cls_token/expanded"
    )
    return graph.add("Concat", first, x, name=f"{path}/tokens", axis=1)


def block(graph: Graph, x: str, path: str, heads: int, epsilon: float) -> str:
    """As `Block`: tokens → tokens."""
    y = graph.lowered(norm(graph, x, f"{path}/norm1", epsilon))
    y = attention(graph, y, f"{path}/attn", heads, f"{path}/ls1")
    x = graph.add("Add", x, graph.float32(y), name=f"{path}/attended")
    y = graph.lowered(norm(graph, x, f"{path}/norm2", epsilon))
    y = gelu(graph, linear(graph, y, f"{path}/mlp/fc1"))
    y = linear(graph, y, f"{path}/mlp/fc2", scale=f"{path}/ls2")
    return graph.add("Add", x, graph.float32(y), name=path)


def attention(graph: Graph, x: str, path: str, heads: int, scale: str) -> str:
    """As `Attention`, with the `LayerScale` at the path `scale` behind it."""
    kernel = np.split(graph.variable(f"params/{path}/qkv/kernel"), 3, axis=1)
    bias = np.split(graph.variable(f"params/{path}/qkv/bias"), 3)
    width = len(bias[0]) // heads
    factor = np.float32(width**-0.5)  # of the scores: queries take it along
    kernel[0], bias[0] = kernel[0] * factor, bias[0] * factor
    # Keys come transposed, for the product with queries.
    orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    split = graph.array(f"{path}/heads", np.array([0, 0, heads, width], np.int64))
    parts = []
    for number, (name, order) in enumerate(orders.items()):
        y = _affine(graph, x, f"{path}/{name}", kernel[number], bias[number])
        y = graph.add("Reshape", y, split, name=f"{path}/{name}/by_head")
        parts.append(graph.add("Transpose", y, name=f"{path}/{name}/turned", perm=order))
    query, key, value = parts
    scores = graph.float32(graph.add("MatMul", query, key, name=f"{path}/scores"))
    shares = graph.lowered(graph.add("Softmax", scores, name=f"{path}/shares", axis=-1))
    y = graph.add("MatMul", shares, value, name=f"{path}/mixed")
    y = graph.add("Transpose", y, name=f"{path}/mixed/turned", perm=[0, 2, 1, 3])
    whole = graph.array(f"{path}/width", np.array([0, 0, heads * width], np.int64))
    y = graph.add("Reshape", y, whole, name=f"{path}/mixed/joined")
    return linear(graph, y, f"{path}/proj", scale=scale)


def linear(graph: Graph, x: str, path: str, *, scale: str | None = None) -> str:
    """As `Linear`; the `LayerScale` at the path `scale` becomes part of the weights."""
    kernel, bias = (graph.variable(f"params/{path}/{name}") for name in ("kernel", "bias"))
    if scale is not None:
        gamma = graph.variable(f"params/{scale}/gamma")
        kernel, bias = kernel * gamma, bias * gamma
    return _affine(graph, x, path, kernel, bias)


def norm(graph: Graph, x: str, path: str, epsilon: float) -> str:
    """A layer norm over the last axis, in float32."""
    scale, bias = (
        graph.array(f"{path}/{name}", graph.variable(f"params/{path}/{name}"))
        for name in ("scale", "bias")
    )
    return graph.add("LayerNormalization", x, scale, bias, name=path, axis=-1, epsilon=epsilon)


def gelu(graph: Graph, x: str) -> str:
    """As `gelu.gelu`: x · (1 + erf(x / √2)) / 2."""
    half, one, root = (
        graph.weight(f"{x}/{name}", np.float32(value))
        for name, value in (("half", 0.5), ("one", 1), ("root", 2**0.5))
    )
    share = graph.add("Erf", graph.add("Div", x, root, name=f"{x}/scaled"), name=f"{x}/erf")
    share = graph.add("Add", share, one, name=f"{x}/erf_plus_1")
    return graph.add("Mul", graph.add("Mul", x, share, name=f"{x}/doubled"), half, name=f"{x}/gelu")


def head(graph: Graph, tokens: str, grid: str, path: str, epsilon: float) -> str:
    """As `Head`: patch tokens → logits (B, C, 4h, 4w)."""
    x = graph.add("Transpose", tokens, name=f"{path}/channels", perm=[0, 2, 1])
    kept = graph.array(f"{path}/kept", np.zeros(2, np.int64))
    shape = graph.add("Concat", kept, grid, name=f"{path}/shape", axis=0)
    x = graph.lowered(graph.add("Reshape", x, shape, name=f"{path}/grid"))
    x = _normed(graph, _doubled(graph, x, f"{path}/up1"), f"{path}/norm1", epsilon)
    x = _normed(graph, _doubled(graph, gelu(graph, x), f"{path}/up2"), f"{path}/norm2", epsilon)
    x = _normed(graph, onnx_layers.conv(graph, x, f"{path}/conv"), f"{path}/norm3", epsilon)
    return graph.float32(onnx_layers.conv(graph, x, f"{path}/out"))


def patches_alone(graph: Graph, tokens: str, path: str) -> str:
    """The tokens without the class token in front."""
    start, end, axis = (
        graph.array(f"{path}/{name}", np.array([value], np.int64))
        for name, value in (("start", 1), ("end", np.iinfo(np.int64).max), ("axis", 1))
    )
    return graph.add("Slice", tokens, start, end, axis, name=f"{path}/patches")


def _affine(graph: Graph, x: str, path: str, kernel: np.ndarray, bias: np.ndarray) -> str:
    y = graph.add("MatMul", x, graph.weight(f"{path}/kernel", kernel), name=f"{path}/product")
    return graph.add("Add", y, graph.weight(f"{path}/bias", bias), name=path)


def _tokens(graph: Graph, x: str) -> str:
    """(B, D, h, w) → (B, h · w, D)."""
    shape = graph.array(f"{x}/flat_shape", np.array([0, 0, -1], np.int64))
    x = graph.add("Reshape", x, shape, name=f"{x}/flat")
    return graph.add("Transpose", x, name=f"{x}/turned", perm=[0, 2, 1])


def _doubled(graph: Graph, x: str, path: str) -> str:
    """As `Doubled`: (B, D, h, w) → (B, features, 2h, 2w)."""
    kernel = graph.variable(f"params/{path}/kernel").transpose(2, 3, 0, 1)
    return graph.add(
        "ConvTranspose", x, graph.weight(f"{path}/kernel", kernel), name=path,
        kernel_shape=[2, 2], strides=[2, 2],
    )  # fmt: skip


def _normed(graph: Graph, x: str, path: str, epsilon: float) -> str:
    """A layer norm over the channels of (B, C, H, W)."""
    x = graph.add("Transpose", graph.float32(x), name=f"{path}/last", perm=[0, 2, 3, 1])
    x = norm(graph, x, path, epsilon)
    return graph.lowered(graph.add("Transpose", x, name=f"{path}/first", perm=[0, 3, 1, 2]))
