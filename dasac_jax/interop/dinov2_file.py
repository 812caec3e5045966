"""Files of DINOv2: the original ones, transformers', timm's, and networks trained here.

They are recognised by their entries. Their numbers are only renamed, and queries, keys and values
joined, so that both kinds of files can be written again bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from dasac_jax.data.labels import NUM_CLASSES
from dasac_jax.errors import UserError
from dasac_jax.interop import dinov2_names, fitting
from dasac_jax.interop.dinov2_names import MASK_TOKEN, Arrays

HEAD = "head."
_LAST = "head.out.weight"  # whose length is the number of classes
_WRAPPERS = ("model", "state_dict")
# Of what a file is with such an entry, the first that is found. DINOv2 itself is the last.
_SIGNS = (
    (r"rope_embed|storage_tokens|^(model\.)?layer\.\d+\.layer_scale1", "DINOv3"),
    (r"(register_tokens|reg_token)$", "DINOv2 with registers"),
    (r"mlp\.(w12|weights_in)\.", "DINOv2 giant"),
    (r"(ls1\.gamma|layer_scale1\.lambda1)$", "DINOv2"),
    (r"(^|\.)(text_model|vision_model|visual)\.", "CLIP or SigLIP"),
    (r"relative_position_bias_table$", "a Swin transformer or BEiT"),
    (r"(^|\.)(segformer\.|patch_embed(dings)?\.?[1-4]\.|block1\.0\.attn)", "SegFormer (MiT)"),
    (r"(^|\.)(model\.)?layers\.\d+\.self_attn\.", "a language model"),
    (r"(^|\.)bert\.", "BERT"),
    (r"(^|\.)(convnextv?2?|stages\.\d+\.blocks\.\d+\.(dwconv|conv_dw))", "ConvNeXt"),
    (r"(^|\.)resnet\.embedder\.", "transformers' ResNet"),
    (r"(blocks|layer)\.0\.(attn|attention)\.", "a vision transformer without layer scale (ViT)"),
)
_KNOWN = "dinov2_vits14, dinov2_vitb14 and dinov2_vitl14 (without registers)"


def family(loaded: Any) -> str | None:
    """Which family of networks a loaded file is of, as _SIGNS calls it; None for any other.

    DINOv2's kinds come first, so that a network around it, such as a depth estimator, counts as
    DINOv2 too.
    """
    names = [name for name in _unwrapped(loaded) if isinstance(name, str)]
    return next(
        (kind for sign, kind in _SIGNS if any(re.search(sign, name) for name in names)), None
    )


def refuse_others(kind: str) -> None:
    """Raise UserError naming the network, unless `kind` is DINOv2 as it is offered here."""
    if kind != "DINOv2":
        raise UserError(f"it is {kind}, which is not offered: of transformers only {_KNOWN} are")


def recognised(loaded: Any, arch: str | None = None) -> dict[str, Any]:
    """What a file of DINOv2 holds, as arguments of `contents.Contents`.

    loaded: {name: array}, perhaps within a dictionary. arch: the network that it has to be. Raises
    UserError listing what is missing, unexpected or of another shape.
    """
    arrays = _without_prefix(_checked(_unwrapped(loaded)))
    if dinov2_names.is_of_transformers(list(arrays)):
        arrays = dinov2_names.from_transformers(arrays)
    found = _network_of(arrays)
    if arch not in (None, found):
        raise UserError(f"it is {found}, not {arch}: leave --arch out")
    dropped = {name: x for name, x in arrays.items() if name.startswith(("classifier.", "fc."))}
    arrays = {name: x for name, x in arrays.items() if name not in dropped}
    lacks_mask = MASK_TOKEN not in arrays
    if lacks_mask:  # as in timm's files; only DINOv2's own training uses it
        width = arrays["cls_token"].shape[-1]
        arrays[MASK_TOKEN] = np.zeros((1, width), np.float32)
    has_head = any(name.startswith(HEAD) for name in arrays)
    classes = len(arrays[_LAST]) if _LAST in arrays and arrays[_LAST].ndim else NUM_CLASSES
    shapes = dinov2_names.entries(found, classes)
    missing = () if has_head else tuple(name for name in shapes if name.startswith(HEAD))
    needed = {name: shape for name, shape in shapes.items() if name not in missing}
    return {
        "arch": found,
        "kind": "weights" if has_head else "dinov2",
        "num_classes": classes,
        "student": _fitted(arrays, needed, found),
        "missing": missing,
        "dropped": dropped,
    }


def _unwrapped(loaded: Any) -> dict[Any, Any]:
    if not isinstance(loaded, dict):
        return {}
    inside = [key for key in _WRAPPERS if isinstance(loaded.get(key), dict)]
    return loaded[inside[0]] if inside else loaded


def _checked(weights: dict[Any, Any]) -> Arrays:
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray | np.generic):
            raise UserError(f"it is not a network's state_dict: {key!r} is no tensor")
    return {key: np.asarray(value) for key, value in weights.items()}


def _without_prefix(arrays: Arrays) -> Arrays:
    """The entries without what stands before the names of the encoder, such as `dinov2.`."""
    token = next((name for name in arrays if name.endswith("cls_token")), None)
    if token is None:
        raise UserError(fitting.listed("missing", ["cls_token"]) + ": it is no whole DINOv2")
    prefix = token.removesuffix("cls_token").removesuffix("embeddings.")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _network_of(arrays: Arrays) -> str:
    """The network of this width and depth. Raises UserError where there is none."""
    width = arrays["cls_token"].shape[-1] if arrays["cls_token"].ndim else 0
    depth = _depth(arrays)
    for arch in dinov2_names.ARCHES:
        shapes = dinov2_names.entries(arch, NUM_CLASSES)
        if shapes["cls_token"][-1] == width and depth == _depth(shapes):
            return arch
    raise UserError(
        f"it is a DINOv2 of width {width} with {depth} blocks, which is not offered: "
        f"only {_KNOWN} are"
    )


def _depth(names: Iterable[str]) -> int:
    return len({name.split(".")[1] for name in names if name.startswith("blocks.")})


def _fitted(arrays: Arrays, needed: dict[str, tuple[int, ...]], arch: str) -> Arrays:
    """The entries as float32 in the order of definition; raises UserError listing problems."""
    found = fitting.differences(arrays, needed)
    problems = {
        "missing": found.missing,
        "unexpected": found.not_needed,
        "of another shape": [
            f"{name} {arrays[name].shape} instead of {needed[name]}" for name in found.reshaped
        ],
        "not floating-point": [
            f"{name} {array.dtype}"
            for name, array in arrays.items()
            if name in needed and not fitting.is_floating(array)
        ],
        "not finite": [
            name
            for name, array in arrays.items()
            if name in needed and fitting.is_floating(array) and not _is_finite(array)
        ],
    }
    words = [fitting.listed(what, names) for what, names in problems.items() if names]
    if words:
        raise UserError(f"it does not fit {arch}: {'; '.join(words)}")
    return {name: arrays[name].astype(np.float32, copy=False) for name in needed}


def _is_finite(array: np.ndarray) -> bool:
    # The sum in float64 is finite where all numbers are, and needs no memory.
    return bool(np.isfinite(array.sum(dtype=np.float64)))
