"""The layers of `dasac_jax.models.layers` as ONNX operations, in evaluation mode.

Each function appends its operations to a graph. x is the name of an array (B, C, H, W), and so is
what is returned. `path` is a layer's place in the tree of variables, as in "layer1/0/conv1".
"""

from __future__ import annotations

import numpy as np

from dasac_jax.models.layers import BN_EPSILON
from dasac_jax.models.onnx_graph import Graph


def conv(
    graph: Graph,
    x: str,
    path: str,
    *,
    norm: str | None = None,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
) -> str:
    """A convolution with the batch norm at the path `norm` folded into it, if one is given.

    padding: on all sides; None: what keeps the size, as in `layers.Conv`.
    """
    kernel, bias = folded(graph, path, norm)
    size = kernel.shape[0]
    padding = dilation * (size // 2) if padding is None else padding
    inputs = [x, graph.weight(f"{path}/kernel", kernel.transpose(3, 2, 0, 1))]
    if bias is not None:
        inputs.append(graph.weight(f"{path}/bias", bias))
    return graph.add(
        "Conv", *inputs, name=path, kernel_shape=[size] * 2, strides=[stride] * 2,
        dilations=[dilation] * 2, pads=[padding] * 4,
    )  # fmt: skip


def folded(graph: Graph, path: str, norm: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel (k, k, in, out) and bias (out,) of a convolution and the batch norm behind it."""
    kernel = graph.variable(f"params/{path}/kernel")
    bias = graph.variable(f"params/{path}/bias")
    if norm is None:
        return kernel, bias
    mean, var = (graph.variable(f"batch_stats/{norm}/{name}") for name in ("mean", "var"))
    scale, shift = (graph.variable(f"params/{norm}/{name}") for name in ("scale", "bias"))
    factor = scale / np.sqrt(var + np.float32(BN_EPSILON))
    return kernel * factor, shift + ((0 if bias is None else bias) - mean) * factor


def relu(graph: Graph, x: str) -> str:
    """max(x, 0)."""
    return graph.add("Relu", x, name=f"{x}/relu")


def max_pool_ceil(graph: Graph, x: str) -> str:
    """As `layers.max_pool_ceil`: 3×3/2, padded by 1 before and 2 behind."""
    return graph.add(
        "MaxPool", x, name=f"{x}/pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 2, 2]
    )


def max_pool_2x2(graph: Graph, x: str) -> str:
    """As `layers.max_pool_2x2`: 2×2/2, rounded down."""
    return graph.add("MaxPool", x, name=f"{x}/pool", kernel_shape=[2, 2], strides=[2, 2])


def upsample(graph: Graph, x: str, size: str, *, align_corners: bool = True) -> str:
    """As `layers.upsample`: bilinear, of float32. size: the name of (H, W), int64."""
    kept = graph.add("Shape", x, name=f"{x}/batch_and_channels", end=2)
    sizes = graph.add("Concat", kept, size, name=f"{x}/upsampled_shape", axis=0)
    return graph.add(
        "Resize", x, "", "", sizes, name=f"{x}/upsampled", mode="linear",
        coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
    )  # fmt: skip


def size_of(graph: Graph, x: str) -> str:
    """The name of the height and width of x, int64."""
    return graph.add("Shape", x, name=f"{x}/size", start=2, end=4)
