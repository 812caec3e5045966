"""A network as an ONNX file: images in, labels or class scores of every pixel out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
import onnx
from flax.traverse_util import flatten_dict
from onnx import TensorProto, helper, numpy_helper

from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.models import onnx_layers
from dasac_jax.models.onnx_graph import Graph
from dasac_jax.version import __version__

Size = tuple[int, int]

OPSET = 18
_IR_VERSION = 8  # the file format that came with this opset; what reads the opset reads it


def serialised(
    model: nn.Module,
    variables: Any,
    *,
    size: Size | None,
    outputs: tuple[str, ...],
    float16: bool,
    metadata: Mapping[str, str],
) -> bytes:
    """A checked ONNX file of a network.

    The input is `images`, (B, H, W, 3) uint8 RGB. Outputs are of the same height and width:
    "labels" (B, H, W) uint8, and "logits" and "probabilities" (B, H, W, C) float32. Batch norms
    are folded into the convolutions.

    Args:
        model: of `models.create_model`.
        variables: {"params", "batch_stats"} of numpy arrays.
        size: (H, W) of the one image that the file then takes; None leaves the number of images,
            height and width open. onnxruntime is a few per cent faster where all is fixed.
        outputs: some of labels, logits, probabilities, in the order that is wanted.
        float16: whether weights and the network's layers are of float16. Normalisation, upsampling
            and what follows stay in float32.
        metadata: written into the file as it is.
    """
    graph = Graph(flatten_dict(variables, sep="/"), np.float16 if float16 else np.float32)
    logits = model.onnx(graph, _normalised(graph, "images"))
    if graph.unread():
        raise RuntimeError(f"{type(model).__name__}.onnx leaves out {', '.join(graph.unread())}")
    _finish(graph, logits, size, outputs, getattr(model, "align_corners", True))
    made = helper.make_graph(
        [
            helper.make_node(node.op, node.inputs, [node.output], node.output, **node.attributes)
            for node in graph.nodes
        ],
        "dasac_jax",
        *_interface(size, outputs, model.num_classes),
        [numpy_helper.from_array(array, name) for name, array in graph.arrays.items()],
    )
    proto = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="dasac-jax",
        producer_version=__version__,
    )
    helper.set_model_props(proto, dict(metadata))
    content = proto.SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    return content


def _interface(size, outputs, num_classes):
    """The descriptions of the file's input and of its outputs."""
    shape = ["batch", "height", "width"] if size is None else [1, *size]
    shapes = {name: [*shape, num_classes] for name in outputs} | {"labels": shape}
    types = dict.fromkeys(outputs, TensorProto.FLOAT) | {"labels": TensorProto.UINT8}
    value = helper.make_tensor_value_info
    return (
        [value("images", TensorProto.UINT8, [*shape, 3])],
        [value(name, types[name], shapes[name]) for name in outputs],
    )


def _normalised(graph: Graph, images: str) -> str:
    """As `image.normalise.normalise`: (B, H, W, 3) uint8 → (B, 3, H, W) float32."""
    mean, std = (
        graph.array(name, 255 * np.array(values, np.float32).reshape(3, 1, 1))
        for name, values in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_STD))
    )
    x = graph.add("Transpose", images, name="planes", perm=[0, 3, 1, 2])
    x = graph.add("Cast", x, name="planes/float", to=TensorProto.FLOAT)
    x = graph.add("Sub", x, mean, name="centred")
    return graph.add("Div", x, std, name="normalised")


def _finish(
    graph: Graph, logits: str, size: Size | None, outputs: tuple[str, ...], align_corners: bool
) -> None:
    """Upsample logits (B, C, h, w) to the images' size and compute the outputs from them."""
    if size is None:
        full = graph.add("Shape", "images", name="images/size", start=1, end=3)
    else:
        full = graph.array("images/size", np.array(size, np.int64))
    upsampled = onnx_layers.upsample(graph, logits, full, align_corners=align_corners)
    scores = None
    if set(outputs) & {"logits", "probabilities"}:
        scores = graph.add("Transpose", upsampled, name="logits", perm=[0, 2, 3, 1])
    if "probabilities" in outputs:
        graph.add("Softmax", scores, name="probabilities", axis=-1)
    if "labels" in outputs:
        best = graph.add("ArgMax", upsampled, name="labels/int64", axis=1, keepdims=0)
        graph.add("Cast", best, name="labels", to=TensorProto.UINT8)
