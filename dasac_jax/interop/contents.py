"""What a loaded PyTorch file holds: the network and everything beside it.

Every tensor of the file is either used, listed as dropped, or named in an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop import dinov2_file, fitting, momentum
from dasac_jax.interop.fitting import Arrays
from dasac_jax.interop.names import entries

_WRAPPERS = ("model", "state_dict")  # keys under which a file may hold its state_dict
_BESIDE = ("opt", "score", "epoch")  # what the authors' snapshots hold beside it
_BUFFERS = ("running_conf", "slow_init")  # the class prior, and whether the teacher is in use


@dataclass(frozen=True)
class Contents:
    """A PyTorch file under the authors' names, in the order in which their modules define them.

    Arrays are those of the file, as float32. kind: "imagenet", "dinov2" (an encoder alone),
    "weights" (a network alone), "baseline" or "final" (snapshots of the two stages). missing:
    entries of new layers that the file lacks. class_prior: (C,). momentum: buffers by parameter,
    without those that the optimiser had not created yet. settings: the optimiser's learning_rate,
    momentum and weight_decay. counters: PyTorch's counts of batches by network and name, which are
    only kept for writing PyTorch files again. dropped: all other arrays of the file, which are not
    used. epoch: epochs done, those of earlier stages included. score: best mIoU, 0..1.
    """

    arch: str
    kind: str
    num_classes: int
    student: Arrays
    missing: tuple[str, ...]
    teacher: Arrays | None = None
    class_prior: np.ndarray | None = None
    momentum: Arrays | None = None
    settings: dict[str, float] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: Arrays = field(default_factory=dict)
    epoch: int | None = None
    score: float | None = None


def recognise(loaded: Any, arch: str | None = None, allow_missing: bool = False) -> Contents:
    """Find out what a loaded PyTorch file holds.

    loaded: nested dictionaries and lists of numpy arrays and scalars. arch: the network, where
    the file fits several. allow_missing: entries of new layers (the heads) may be missing.
    Raises UserError listing what is missing, unexpected, of another shape or of no use here.
    """
    transformer = dinov2_file.family(loaded)
    if transformer:
        dinov2_file.refuse_others(transformer)
        return Contents(**dinov2_file.recognised(loaded, arch))
    weights, beside = _unwrapped(loaded)
    networks, buffers = _split(weights)
    arch, layout = fitting.network_of(fitting.without_counters(networks["student"])[0], arch)
    classes, found, counters, dropped = None, {}, {}, {}
    for which, arrays in networks.items():
        prefix = "slow_net." if which == "teacher" else ""
        names = {name: fitting.renamed_entry(name, arch, layout) for name in arrays}
        dropped |= {prefix + name: arrays[name] for name, ours in names.items() if ours is None}
        renamed = {ours: arrays[name] for name, ours in names.items() if ours is not None}
        renamed, counts = fitting.without_counters(renamed)
        classes = classes or fitting.num_classes(renamed)
        found[which] = fitting.fitted(
            renamed,
            counts,
            arch,
            classes,
            may_lack_new=allow_missing or layout == fitting.TORCHVISION,
            prefix=prefix,
        )
        if counts:
            counters[which] = counts
    if "teacher" in found:
        found["class_prior"] = _class_prior(buffers, classes)
        if not _teacher_in_use(buffers):  # the next iteration would have overwritten it
            dropped["running_conf"] = found.pop("class_prior")
            dropped |= {f"slow_net.{name}": x for name, x in found.pop("teacher").items()}
            counters.pop("teacher", None)
    elif buffers:
        raise UserError(f"{fitting.listed('unexpected', buffers)} (there is no slow_net)")
    shapes = entries(arch, classes)
    if "opt" in beside:
        found["momentum"], found["settings"] = momentum.buffers(arch, shapes, beside["opt"])
    return Contents(
        arch=arch,
        kind=_kind(layout, found, beside),
        num_classes=classes,
        missing=tuple(name for name in shapes if name not in found["student"]),
        counters=counters,
        dropped=dropped,
        epoch=_number(beside, "epoch", int),
        score=_number(beside, "score", float),
        **found,
    )


def _unwrapped(loaded: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state_dict of a loaded file, and the other values that the file holds beside it."""
    if not isinstance(loaded, dict):
        raise UserError(f"it holds a {type(loaded).__name__}, not a network's state_dict")
    inside = [key for key in _WRAPPERS if isinstance(loaded.get(key), dict)]
    if not inside:
        return loaded, {}
    beside = {key: value for key, value in loaded.items() if key != inside[0]}
    unknown = [repr(key) for key in beside if key not in _BESIDE]
    if unknown:
        raise UserError(
            f"{fitting.listed('unexpected', unknown)} (beside {inside[0]!r} only "
            f"{', '.join(_BESIDE)} are known: save the state_dict alone)"
        )
    return loaded[inside[0]], beside


def _split(weights: dict[str, Any]) -> tuple[dict[str, Arrays], Arrays]:
    """The entries of student and teacher without prefixes, and those in _BUFFERS."""
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray | np.generic):
            raise UserError(
                f"it is not a network's state_dict: {key!r} is a {type(value).__name__}"
            )
    if not weights:
        raise UserError("it is not a network's state_dict: it is empty")
    arrays = {key: np.asarray(value) for key, value in weights.items()}
    if all(key.startswith("module.") for key in arrays):
        arrays = {key.removeprefix("module."): array for key, array in arrays.items()}
    prefix = "backbone." if any(key.startswith("backbone.") for key in arrays) else ""
    networks: dict[str, Arrays] = {"student": {}}
    buffers: Arrays = {}
    unexpected = []
    for key, array in arrays.items():
        if key in _BUFFERS:
            buffers[key] = array
        elif key.startswith("slow_net."):
            networks.setdefault("teacher", {})[key.removeprefix("slow_net.")] = array
        elif key.startswith(prefix):
            networks["student"][key.removeprefix(prefix)] = array
        else:
            unexpected.append(key)
    if unexpected:
        raise UserError(fitting.listed("unexpected", unexpected))
    return networks, buffers


def _class_prior(buffers: Arrays, classes: int) -> np.ndarray:
    prior = buffers.get("running_conf")
    if prior is None:
        raise UserError("running_conf, the class prior, is missing beside slow_net")
    if prior.shape != (classes,) or not fitting.is_floating(prior):
        raise UserError(f"running_conf is {prior.dtype} {prior.shape}, the head has {classes}")
    return prior.astype(np.float32, copy=False)


def _teacher_in_use(buffers: Arrays) -> bool:
    """Whether the authors' flag says that the teacher has been started."""
    flag = buffers.get("slow_init")
    if flag is None or flag.size != 1:
        raise UserError("slow_init, which says whether the teacher runs, is missing or no number")
    return bool(flag.reshape(()))


def _kind(layout: str, found: dict[str, Any], beside: dict[str, Any]) -> str:
    if "teacher" in found:
        return "final"
    if layout == fitting.TORCHVISION:
        return "imagenet"
    return "baseline" if "epoch" in beside else "weights"


def _number(beside: dict[str, Any], key: str, kind: type) -> Any:
    if key not in beside:
        return None
    value = np.asarray(beside[key])
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise UserError(f"{key!r} is {beside[key]!r}, not a number")
    return kind(value.reshape(()))
