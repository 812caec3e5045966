"""DINOv2's names: of the original files, of transformers, and the paths in Flax's variables.

The Flax modules have the names of the original code (`blocks.0.attn.qkv.weight`), in which timm
writes its files, too. The files of transformers have queries, keys and values apart and other names
(`encoder.layer.0.attention.attention.query.weight`). The head of the segmentation network is not
part of these files; its entries begin with `head.`.
"""

import re

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.models.shapes import variable_shapes

Arrays = dict[str, np.ndarray]

ARCHES = ("dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14", "dinov2_demo")
MASK_TOKEN = "mask_token"

_LEAVES = {"kernel": "weight", "scale": "weight"}
# (in the original names, in transformers' files), the first that is found is replaced.
_TRANSFORMERS = (
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("pos_embed", "embeddings.position_embeddings"),
    ("cls_token", "embeddings.cls_token"),
    (MASK_TOKEN, f"embeddings.{MASK_TOKEN}"),
    ("norm.", "layernorm."),
)
_TRANSFORMERS_BLOCK = (
    ("attn.proj.", "attention.output.dense."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
)
_PARTS = ("query", "key", "value")  # in the order of the rows of `attn.qkv`
# What transformers 5 calls these layers in memory.
_IN_MEMORY = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
              "o_proj": "output.dense"}  # fmt: skip
_ORDER = (
    "cls_token", "pos_embed", MASK_TOKEN, "patch_embed", "blocks", "norm", "head",
    "norm1", "attn", "qkv", "proj", "ls1", "norm2", "mlp", "fc1", "fc2", "ls2",
    "up1", "up2", "conv", "norm3", "out", "weight", "bias", "gamma",
)  # fmt: skip
_RANK = {part: rank for rank, part in enumerate(_ORDER)}


def original_name(path: tuple[str, ...]) -> str:
    """("encoder", "blocks", "0", "norm1", "scale") → blocks.0.norm1.weight."""
    *modules, leaf = path[1:] if path[0] == "encoder" else path
    modules = ["patch_embed", "proj"] if modules == ["patch_embed"] else modules
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def flax_path(name: str, ndim: int) -> tuple[str, ...]:
    """The path of an entry below "params"; the inverse of `original_name`."""
    *modules, leaf = name.replace("patch_embed.proj.", "patch_embed.").split(".")
    if leaf == "weight":
        leaf = "scale" if ndim == 1 else "kernel"
    inside = () if modules[:1] == ["head"] else ("encoder",)
    return (*inside, *modules, leaf)


def definition_order(name: str) -> tuple[int, ...]:
    """A key that sorts original names into the order in which the original code defines them."""
    parts = name.split(".")
    return tuple(int(p) if p.isdecimal() else _RANK.get(p, len(_RANK)) for p in parts)


def entries(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """{original name: PyTorch's shape} of a network and its head, in the order of definition."""
    found = {}
    for path, shape in variable_shapes(arch, num_classes).items():
        name = original_name(tuple(path.split("/")[1:]))
        found[name] = tuple(shape[axis] for axis in _to_torch(name, len(shape)))
    return {name: found[name] for name in sorted(found, key=definition_order)}


def variables(arrays: Arrays) -> dict:
    """{original name: array} → {"params": …, "batch_stats": {}} of views of the same arrays."""
    flat = {}
    for name, array in arrays.items():
        axes = np.argsort(_to_torch(name, array.ndim))
        flat[flax_path(name, array.ndim)] = np.asarray(array).transpose(axes)
    return {"params": unflatten_dict(flat), "batch_stats": {}}


def state_dict(variables: dict) -> Arrays:
    """The inverse of `variables`, in the order of definition."""
    found = {}
    for path, value in flatten_dict(variables["params"]).items():
        name, array = original_name(path), np.asarray(value)
        found[name] = array.transpose(_to_torch(name, array.ndim))
    return {name: found[name] for name in sorted(found, key=definition_order)}


def is_of_transformers(names: list[str]) -> bool:
    """Whether the entries have the names of transformers' files."""
    return any(name.startswith(("embeddings.", "encoder.layer.")) for name in names)


def from_transformers(arrays: Arrays) -> Arrays:
    """Entries of a transformers file under the original names; queries, keys and values joined.

    Parts that are not all there stay apart under their own names.
    """
    arrays = {_as_in_files(name): array for name, array in arrays.items()}
    found: Arrays = {}
    for name, array in arrays.items():
        part = re.fullmatch(r"(encoder\.layer\.(\d+)\.attention\.attention\.)(\w+)\.(\w+)", name)
        parts = [f"{part[1]}{each}.{part[4]}" for each in _PARTS] if part else []
        if not part or any(each not in arrays for each in parts):
            found[name if part else _original(name)] = array
        elif part[3] == _PARTS[0]:
            joined = np.concatenate([arrays[each] for each in parts])
            found[f"blocks.{part[2]}.attn.qkv.{part[4]}"] = joined
    return found


def to_transformers(arrays: Arrays) -> Arrays:
    """The inverse of `from_transformers`: the names and arrays of transformers' files."""
    found: Arrays = {}
    for name, array in arrays.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.*)", name)
        if not block:
            found[_replaced(name, _TRANSFORMERS)] = array
            continue
        prefix, rest = f"encoder.layer.{block[1]}.", block[2]
        if rest.startswith("attn.qkv."):
            leaf = rest.rsplit(".", 1)[1]
            for part, rows in zip(_PARTS, np.split(array, 3), strict=True):
                found[f"{prefix}attention.attention.{part}.{leaf}"] = rows
        else:
            found[prefix + _replaced(rest, _TRANSFORMERS_BLOCK)] = array
    return found


def _as_in_files(name: str) -> str:
    """The name in files of what transformers 5 calls otherwise in memory."""
    found = re.fullmatch(r"(encoder\.layer\.\d+\.attention\.)([qkvo]_proj)(\.\w+)", name)
    return f"{found[1]}{_IN_MEMORY[found[2]]}{found[3]}" if found else name


def _original(name: str) -> str:
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.*)", name)
    if not block:
        return _replaced(name, [pair[::-1] for pair in _TRANSFORMERS])
    pairs = [pair[::-1] for pair in _TRANSFORMERS_BLOCK]
    return f"blocks.{block[1]}.{_replaced(block[2], pairs)}"


def _replaced(name: str, pairs) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _to_torch(name: str, ndim: int) -> tuple[int, ...]:
    """The order of Flax's axes in PyTorch's array of this entry."""
    if name.startswith("head.up"):
        return (2, 3, 0, 1)  # transposed convolutions have their inputs first
    if ndim == 4:
        return (3, 2, 0, 1)
    return (1, 0) if ndim == 2 and name.endswith(".weight") else tuple(range(ndim))
