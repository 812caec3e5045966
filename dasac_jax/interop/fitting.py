"""Which network a state_dict belongs to, and the errors that list entries that do not fit it.

A file may use the names of the authors' code or those of torchvision's ImageNet networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from dasac_jax.data.labels import NUM_CLASSES
from dasac_jax.errors import UserError
from dasac_jax.interop.names import COUNTER, entries, is_new
from dasac_jax.models import ARCHITECTURES, has_batch_norm
from dasac_jax.models.matching import differences

Arrays = dict[str, np.ndarray]

AUTHORS, TORCHVISION = "authors", "torchvision"
# The biases of the last layers, whose length is the number of classes.
_LAST_BIAS = re.compile(
    r"^((model\.layer5|classifier)\.conv2d_list\.\d|vgg_head\.8|score_pool[34])\.bias$"
)
# The index of torchvision's pooling layer after conv4. DeepLab has no such layer, so every later
# index is smaller by one there.
_OMITTED_POOL = 33
_LISTED = 10


def network_of(arrays: Arrays, arch: str | None = None) -> tuple[str, str]:
    """(network, AUTHORS or TORCHVISION): the one that most entries fit by name and shape.

    arch: the network where it is known already; then only the names are found out. Raises
    UserError where no network fits half of the entries, and where two fit equally well.
    """
    if arch is not None and arch not in ARCHITECTURES:
        raise UserError(f"--arch {arch}: choose one of {', '.join(ARCHITECTURES)}")
    fits = {
        (candidate, layout): _fitting(arrays, candidate, layout)
        for candidate in ([arch] if arch else filter(has_batch_norm, ARCHITECTURES))
        for layout in (AUTHORS, TORCHVISION)
    }
    most = max(fits.values())
    best = [key for key, fit in fits.items() if fit == most]
    if arch:
        return best[0]
    if most == 0 or most * 2 < len(arrays):
        raise UserError(
            f"no known network fits: it has {len(arrays)} entries ({', '.join(list(arrays)[:3])}, "
            f"…), of which {most} fit {best[0][0]}; --arch shows what differs from a network, "
            f"one of {', '.join(ARCHITECTURES)}"
        )
    names = list(dict.fromkeys(candidate for candidate, _ in best))
    if len(names) > 1:
        raise UserError(f"it fits {' and '.join(names)} alike: choose with --arch")
    return best[0]


def _fitting(arrays: Arrays, arch: str, layout: str) -> int:
    """The number of entries whose name and shape are those of a network."""
    renamed = {renamed_entry(name, arch, layout): array for name, array in arrays.items()}
    shapes = entries(arch, num_classes(renamed))
    return sum(renamed[name].shape == shapes[name] for name in renamed.keys() & shapes.keys())


def renamed_entry(name: str, arch: str, layout: str) -> str | None:
    """The authors' name of an entry; None for torchvision's classifier, which is not used."""
    if layout == AUTHORS:
        return name
    if "vgg16" not in arch:
        return None if name.startswith("fc.") else f"model.{name}"
    if name.startswith("classifier."):
        return None
    index = re.match(r"features\.(\d+)\.", name)
    if index is None:
        return name
    number = int(index[1])
    if arch == "deeplabv2_vgg16_bn":
        place = f"features.{number - (number > _OMITTED_POOL)}"
    else:
        place = f"block{1 + (number >= 24) + (number >= 34)}.{number}"
    return f"{place}.{name[index.end() :]}"


def num_classes(arrays: Arrays) -> int:
    """The number of outputs of the head (under the authors' names); 19 where there is no head."""
    for name, array in arrays.items():
        if name and _LAST_BIAS.match(name) and array.ndim == 1 and array.size:
            return array.size
    return NUM_CLASSES


def without_counters(arrays: Arrays) -> tuple[Arrays, dict[str, int]]:
    """The entries without PyTorch's counts of batches (num_batches_tracked), and these counts.

    Raises UserError for a count that is no whole number.
    """
    counters = {}
    for name, array in arrays.items():
        if name.endswith(f".{COUNTER}"):
            if array.size != 1 or array.dtype.kind not in "iu":
                raise UserError(f"{name} is {array.dtype} {array.shape}, not one whole number")
            counters[name] = int(array.reshape(()))
    return {name: array for name, array in arrays.items() if name not in counters}, counters


def fitted(
    arrays: Arrays,
    counters: Iterable[str],
    arch: str,
    classes: int,
    *,
    may_lack_new: bool,
    prefix: str = "",
) -> Arrays:
    """The entries of a network as float32, in the order in which its modules define them.

    counters: the names of the counts of batches in the file. may_lack_new: whether entries of new
    layers may be missing. prefix: what the entries' names begin with in messages. Raises UserError
    that lists what is missing, unexpected, of another shape or not floating-point.
    """
    shapes = entries(arch, classes)
    missing, unexpected, reshaped = differences(arrays, shapes)
    new = [name for name in missing if is_new(arch, name, len(shapes[name]))]
    if may_lack_new:
        missing = [name for name in missing if name not in new]
    norms = {name.removesuffix("running_mean") for name in shapes if name.endswith("running_mean")}
    unexpected += [name for name in counters if name.removesuffix(COUNTER) not in norms]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": [
            f"{name} {arrays[name].shape} instead of {shapes[name]}" for name in reshaped
        ],
        "not floating-point": [
            f"{name} {array.dtype}"
            for name, array in arrays.items()
            if name in shapes and not is_floating(array)
        ],
    }
    words = [listed(what, [prefix + n for n in names]) for what, names in problems.items() if names]
    if words:
        hint = "; --allow-missing makes new heads" if missing and missing == new else ""
        raise UserError(f"it does not fit {arch}: {'; '.join(words)}{hint}")
    with np.errstate(over="ignore"):  # the result is not finite then, which is checked later
        return {n: arrays[n].astype(np.float32, copy=False) for n in shapes if n in arrays}


def is_floating(array: np.ndarray) -> bool:
    """Whether an array holds real floating-point numbers.

    bfloat16 is named because numpy does not count that type of ml_dtypes among its own.
    """
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def listed(what: str, names: Iterable[str]) -> str:
    """Names as in "2 are missing: conv1.weight, bn1.weight"; at most ten are written out."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names)} {verb} {what}: {', '.join(names[:_LISTED])}{more}"
