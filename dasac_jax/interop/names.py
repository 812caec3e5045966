"""PyTorch's names and layouts ↔ pytrees.

Modules carry PyTorch's names, so a path maps by joining with dots; only the leaves, the atrous
heads and ResNet's `model.` prefix differ. Convolutions turn from OIHW to HWIO.
"""

import re

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.errors import UserError

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}


def torch_name(arch: str, path: tuple[str, ...]) -> str:
    """PyTorch's name of a leaf: ("layer1", "0", "bn1", "scale") → model.layer1.0.bn1.weight."""
    *modules, leaf = path
    if modules[0] in ("layer5", "classifier"):
        modules.insert(1, "conv2d_list")
    prefix = ["model"] if "resnet" in arch else []
    return ".".join([*prefix, *modules, {**_LEAVES, **_STATISTICS}[leaf]])


def flax_path(arch: str, name: str, ndim: int) -> tuple[str, tuple[str, ...]]:
    """(collection, path) of a PyTorch entry; the inverse of `torch_name`."""
    path = re.sub(r"^model\.", "", name) if "resnet" in arch else name
    *modules, leaf = path.split(".")
    modules = [module for module in modules if module != "conv2d_list"]
    for ours, theirs in _STATISTICS.items():
        if leaf == theirs:
            return "batch_stats", (*modules, ours)
    if leaf not in ("weight", "bias"):
        raise UserError(f"state_dict entry {name!r}: not a weight, bias or running statistic")
    ours = leaf if leaf == "bias" else ("kernel" if ndim == 4 else "scale")
    return "params", (*modules, ours)


def variables_from_state_dict(arch: str, state_dict: dict[str, np.ndarray]) -> dict:
    """{PyTorch name: array} → {"params": …, "batch_stats": …}; batch counters are dropped."""
    flat: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, array in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = np.asarray(array)
        collection, path = flax_path(arch, name, array.ndim)
        flat[collection][path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return {collection: unflatten_dict(leaves) for collection, leaves in flat.items()}


def state_dict_from_variables(arch: str, variables: dict) -> dict[str, np.ndarray]:
    """The inverse of `variables_from_state_dict`; batch counters are zero."""
    out: dict[str, np.ndarray] = {}
    for collection in ("params", "batch_stats"):
        for path, value in flatten_dict(variables[collection]).items():
            array = np.asarray(value)
            out[torch_name(arch, path)] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    for name in [name for name in out if name.endswith("running_mean")]:
        counter = name.removesuffix("running_mean") + "num_batches_tracked"
        out[counter] = np.zeros((), np.int64)
    return out
