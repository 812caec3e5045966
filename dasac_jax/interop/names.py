"""PyTorch's names of a network's entries, and the paths of the same arrays in Flax's variables.

The Flax modules have the names of the authors' PyTorch modules, so a path becomes a name by
joining it with dots. Only three things differ: the names of the arrays themselves (kernel and
scale are both weight), the list of branches in the atrous heads, and ResNet's prefix `model.`.
Kernels are OIHW in PyTorch and HWIO in Flax.
"""

import functools
import re

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.errors import UserError
from dasac_jax.interop import dinov2_names
from dasac_jax.models import NEW_LAYERS
from dasac_jax.models.shapes import variable_shapes

COUNTER = "num_batches_tracked"
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}
# The parts of PyTorch's names in the order in which the authors' modules define them.
_PARTS = (
    "model", "conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample",
    "layer1", "layer2", "layer3", "layer4", "layer5", "features", "classifier",
    "block1", "block2", "block3", "vgg_head", "score_pool4", "score_pool3", "conv2d_list",
    "weight", "bias", "running_mean", "running_var", COUNTER,
)  # fmt: skip
_RANK = {part: rank for rank, part in enumerate(_PARTS)}


def torch_name(arch: str, path: tuple[str, ...]) -> str:
    """PyTorch's name of an array: ("layer1", "0", "bn1", "scale") → model.layer1.0.bn1.weight."""
    *modules, leaf = path
    if modules[0] in ("layer5", "classifier"):
        modules.insert(1, "conv2d_list")
    prefix = ["model"] if _is_resnet(arch) else []
    return ".".join([*prefix, *modules, {**_LEAVES, **_STATISTICS}[leaf]])


def flax_path(arch: str, name: str, ndim: int) -> tuple[str, tuple[str, ...]]:
    """(collection, path) of a PyTorch entry; the inverse of `torch_name`."""
    if arch in dinov2_names.ARCHES:
        return "params", dinov2_names.flax_path(name, ndim)
    path = re.sub(r"^model\.", "", name) if _is_resnet(arch) else name
    *modules, leaf = path.split(".")
    modules = [module for module in modules if module != "conv2d_list"]
    for ours, theirs in _STATISTICS.items():
        if leaf == theirs:
            return "batch_stats", (*modules, ours)
    if leaf not in ("weight", "bias"):
        raise UserError(f"state_dict entry {name!r}: not a weight, bias or running statistic")
    ours = leaf if leaf == "bias" else ("kernel" if ndim == 4 else "scale")
    return "params", (*modules, ours)


def definition_order(name: str) -> tuple[int, ...]:
    """A key that sorts a network's PyTorch names into the order in which modules are defined.

    PyTorch's state_dict and the authors' optimiser use that order; Flax's variables are sorted by
    name instead.
    """
    return tuple(
        int(part) if part.isdecimal() else _RANK.get(part, len(_RANK)) for part in name.split(".")
    )


@functools.cache
def entries(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """{PyTorch name: PyTorch shape} of a network in the order of definition.

    PyTorch's counts of batches (num_batches_tracked) are left out.
    """
    if arch in dinov2_names.ARCHES:
        return dinov2_names.entries(arch, num_classes)
    found = {}
    for path, shape in variable_shapes(arch, num_classes).items():
        name = torch_name(arch, tuple(path.split("/")[1:]))
        found[name] = (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape
    return {name: found[name] for name in sorted(found, key=definition_order)}


def is_new(arch: str, name: str, ndim: int) -> bool:
    """Whether a PyTorch entry belongs to the layers that an ImageNet network does not have."""
    return re.match(NEW_LAYERS, "/".join(flax_path(arch, name, ndim)[1])) is not None


def variables_from_state_dict(arch: str, state_dict: dict[str, np.ndarray]) -> dict:
    """{PyTorch name: array} → {"params": …, "batch_stats": …} of views of the same arrays.

    PyTorch's counts of batches are left out. Raises UserError for a name that is neither a weight,
    a bias nor a running statistic.
    """
    if arch in dinov2_names.ARCHES:
        return dinov2_names.variables(state_dict)
    flat: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, array in state_dict.items():
        if name.endswith(COUNTER):
            continue
        array = np.asarray(array)
        collection, path = flax_path(arch, name, array.ndim)
        flat[collection][path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return {collection: unflatten_dict(arrays) for collection, arrays in flat.items()}


def state_dict_from_variables(arch: str, variables: dict) -> dict[str, np.ndarray]:
    """The inverse of `variables_from_state_dict`, in PyTorch's order, with counts of batches 0."""
    if arch in dinov2_names.ARCHES:
        return dinov2_names.state_dict(variables)
    out: dict[str, np.ndarray] = {}
    for collection in ("params", "batch_stats"):
        for path, value in flatten_dict(variables[collection]).items():
            array = np.asarray(value)
            out[torch_name(arch, path)] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    for name in [name for name in out if name.endswith("running_mean")]:
        out[name.removesuffix("running_mean") + COUNTER] = np.zeros((), np.int64)
    return {name: out[name] for name in sorted(out, key=definition_order)}


def _is_resnet(arch: str) -> bool:
    return arch in ("deeplabv2_resnet101", "deeplabv2_demo", "deeplabv2_small")
