"""What a loaded PyTorch file holds: the network and everything beside it.

Every tensor of the file is either used, listed as dropped, or named in an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop import dinov2_file, fitting, momentum, other_networks, unwrapping
from dasac_jax.interop.fitting import Arrays
from dasac_jax.interop.names import entries, is_new
from dasac_jax.interop.torch_files.file import release_pages

_BUFFERS = ("running_conf", "slow_init")  # the class prior, and whether the teacher is in use


@dataclass(frozen=True)
class Contents:
    """A PyTorch file under the authors' names, in the order in which their modules define them.

    Arrays are those of the file, as float32. kind: "imagenet", "dinov2" (an encoder alone),
    "weights" (a network alone), "baseline" or "final" (snapshots of the two stages). missing:
    entries of new layers that the file lacks. class_prior: (C,). momentum: buffers by parameter,
    without those that the optimiser had not created yet. settings: the optimiser's learning_rate,
    momentum and weight_decay. counters: PyTorch's counts of batches by network and name, which are
    only kept for writing PyTorch files again. dropped: all other arrays of the network, which are
    not used. notes: sentences on what else of the file is not used, and on how weights were
    changed. epoch: epochs done, those of earlier stages included. score: best mIoU, 0..1.
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
    notes: tuple[str, ...] = ()
    epoch: int | None = None
    score: float | None = None


def recognise(loaded: Any, arch: str | None = None, allow_missing: bool = False) -> Contents:
    """Find out what a loaded PyTorch file holds.

    loaded: nested dictionaries and lists of numpy arrays and scalars. arch: the network, where
    the file fits several. allow_missing: entries of new layers (the heads) may be missing.
    Raises UserError listing what is missing, unexpected, of another shape, not finite or of no use
    here, and for networks that compute something else.
    """
    transformer = dinov2_file.family(loaded)
    if transformer:
        dinov2_file.refuse_others(transformer)
        return Contents(**dinov2_file.recognised(loaded, arch))
    weights, beside, notes = unwrapping.unwrapped(loaded)
    arrays = unwrapping.plain_names(weights)
    other_networks.refuse_other_families(arrays)
    networks, buffers = _split(arrays)
    networks["student"], early_head = other_networks.final_head(networks["student"])
    arch, layout = fitting.network_of(fitting.without_counters(networks["student"])[0], arch)
    classes, found, counters, dropped = _fitted(networks, arch, layout, allow_missing)
    dropped = early_head | dropped
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
    _refuse_not_finite(found)
    missing = tuple(name for name in shapes if name not in found["student"])
    is_imagenet = layout == fitting.TORCHVISION and _has_no_head(arch, found["student"])
    if is_imagenet:
        other_networks.refuse_merged_norms(arch, found["student"])
    found["student"], changes = other_networks.in_our_terms(
        arch,
        found["student"],
        foreign=bool(early_head) or (layout == fitting.TORCHVISION and not is_imagenet),
        alone=found.keys() == {"student"},
    )
    return Contents(
        arch=arch,
        kind=_kind(is_imagenet, found, beside),
        num_classes=classes,
        missing=missing,
        counters=counters,
        dropped=dropped,
        notes=notes + changes,
        epoch=_number(beside, "epoch", int),
        score=_number(beside, "score", float),
        **found,
    )


def _fitted(
    networks: dict[str, Arrays], arch: str, layout: str, allow_missing: bool
) -> tuple[int, dict[str, Any], dict[str, dict[str, int]], Arrays]:
    """(classes, arrays by network, counts of batches by network, what is dropped)."""
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
    return classes, found, counters, dropped


def _split(arrays: Arrays) -> tuple[dict[str, Arrays], Arrays]:
    """The entries of student and teacher without prefixes, and those in _BUFFERS."""
    own = [key for key in arrays if key not in _BUFFERS and not key.startswith("slow_net.")]
    prefix = unwrapping.prefix_of(own)
    if prefix is None:  # the first layer is missing, which an error is to say
        prefix = "backbone." if any(key.startswith("backbone.") for key in own) else ""
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


def _has_no_head(arch: str, arrays: Arrays) -> bool:
    return not any(is_new(arch, name, array.ndim) for name, array in arrays.items())


def _refuse_not_finite(found: dict[str, Any]) -> None:
    """Raise UserError naming the tensors of which a network could compute nothing but NaN."""
    bad = []
    for what, label in (("student", ""), ("teacher", "slow_net."), ("momentum", "momentum of ")):
        for name, array in found.get(what, {}).items():
            # The sum in float64 is finite where all numbers are, and needs no memory.
            if not np.isfinite(array.sum(dtype=np.float64)):
                wrong = np.count_nonzero(~np.isfinite(array))
                bad.append(f"{label}{name} ({wrong} of {array.size} numbers)")
            elif name.endswith("running_var") and what != "momentum" and array.min() < 0:
                bad.append(f"{label}{name} (a variance below 0)")
            release_pages(array)
    prior = found.get("class_prior")
    if prior is not None and not np.isfinite(prior).all():
        bad.append("running_conf")
    if bad:
        raise UserError(
            f"{fitting.listed('not finite', bad)}: the training had diverged or the file is "
            "damaged; take an earlier one"
        )


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


def _kind(is_imagenet: bool, found: dict[str, Any], beside: dict[str, Any]) -> str:
    if "teacher" in found:
        return "final"
    if is_imagenet:
        return "imagenet"
    return "baseline" if "epoch" in beside else "weights"


def _number(beside: dict[str, Any], key: str, kind: type) -> Any:
    if key not in beside:
        return None
    value = np.asarray(beside[key])
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise UserError(f"{key!r} is {beside[key]!r}, not a number: save the file without it")
    return kind(value.reshape(()))
