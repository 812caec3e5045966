"""Which network a state_dict fits, under the authors' names or torchvision's, and what does not."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from dasac_jax.data.labels import NUM_CLASSES
from dasac_jax.errors import UserError
from dasac_jax.interop.names import COUNTER, entries, is_new
from dasac_jax.models import ARCHITECTURES

Arrays = dict[str, np.ndarray]

AUTHORS, TORCHVISION = "authors", "torchvision"
# The bias of a network's last layer is as long as there are classes.
_LAST_BIAS = re.compile(
    r"^((model\.layer5|classifier)\.conv2d_list\.\d|vgg_head\.8|score_pool[34])\.bias$"
)
_LEFT_OUT = 33  # torchvision's pool after conv4, which DeepLab lacks: conv5 moves up by one
_LISTED = 10


def network_of(arrays: Arrays, arch: str | None = None) -> tuple[str, str]:
    """The network and the layout of names that most entries fit; `arch` decides the network.

    Raises UserError where no network fits half of the entries, and where two fit alike.
    """
    if arch is not None and arch not in ARCHITECTURES:
        raise UserError(f"--arch {arch}: choose one of {', '.join(ARCHITECTURES)}")
    fits = {
        (candidate, layout): _fitting(arrays, candidate, layout)
        for candidate in ([arch] if arch else ARCHITECTURES)
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
    renamed = {renamed_entry(name, arch, layout): array for name, array in arrays.items()}
    shapes = entries(arch, num_classes(renamed))
    return sum(renamed[name].shape == shapes[name] for name in renamed.keys() & shapes.keys())


def renamed_entry(name: str, arch: str, layout: str) -> str | None:
    """The authors' name of an entry; None for torchvision's classifier."""
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
        place = f"features.{number - (number > _LEFT_OUT)}"
    else:
        place = f"block{1 + (number >= 24) + (number >= 34)}.{number}"
    return f"{place}.{name[index.end() :]}"


def num_classes(arrays: Arrays) -> int:
    """As many as the head (under the authors' names) has outputs; without a head Cityscapes'."""
    for name, array in arrays.items():
        if name and _LAST_BIAS.match(name) and array.ndim == 1 and array.size:
            return array.size
    return NUM_CLASSES


def without_counters(arrays: Arrays) -> tuple[Arrays, dict[str, int]]:
    """Entries without PyTorch's counts of batches, and those."""
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
    """The entries as float32 and in the order of definition, all being there.

    may_lack_new: those of new layers may be missing. prefix: what the entries' names begin with
    in messages. Raises UserError that lists what is missing, unexpected, or of another kind.
    """
    shapes = entries(arch, classes)
    missing = [name for name in shapes if name not in arrays]
    new = [name for name in missing if is_new(arch, name, len(shapes[name]))]
    if may_lack_new:
        missing = [name for name in missing if name not in new]
    norms = {name.removesuffix("running_mean") for name in shapes if name.endswith("running_mean")}
    unexpected = [name for name in arrays if name not in shapes]
    unexpected += [name for name in counters if name.removesuffix(COUNTER) not in norms]
    known = {name: array for name, array in arrays.items() if name in shapes}
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": [
            f"{name} {array.shape} instead of {shapes[name]}"
            for name, array in known.items()
            if array.shape != shapes[name]
        ],
        "not floating-point": [
            f"{name} {array.dtype}" for name, array in known.items() if not is_floating(array)
        ],
    }
    words = [listed(what, [prefix + n for n in names]) for what, names in problems.items() if names]
    if words:
        hint = "; --allow-missing makes new heads" if missing and missing == new else ""
        raise UserError(f"it does not fit {arch}: {'; '.join(words)}{hint}")
    return {name: arrays[name].astype(np.float32, copy=False) for name in shapes if name in arrays}


def is_floating(array: np.ndarray) -> bool:
    """Whether its numbers are real ones, bfloat16 included, which numpy does not count so."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def listed(what: str, names: Iterable[str]) -> str:
    """ "2 are missing: conv1.weight, bn1.weight"."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names)} {verb} {what}: {', '.join(names[:_LISTED])}{more}"
