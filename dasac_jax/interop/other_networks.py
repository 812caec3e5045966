"""Networks of other repositories: told by their entries, refused, or brought into our terms.

DeepLabv2 on ResNet-101 is in many repositories on domain adaptation, with the same names and
shapes and yet other functions: most take BGR levels (0..255) minus a mean instead of normalised
RGB, and some sum two of the four branches of the head, whose `return` stands inside the loop. Both
leave traces in the numbers of a trained network:

- The running variance after the first convolution is that of its results, so it tells how strong
  the inputs were.
- Branches that are never used keep the values that they were drawn with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.interop.fitting import Arrays

# The mean that Caffe's ImageNet networks and their heirs subtract, in the order BGR.
CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)

# Entries that only networks of these families have, and what these compute.
_FAMILIES = (
    (
        r"(^|\.)aspp\.(stages\.)?c0\.weight$",
        "the DeepLabv2 of kazuto1011/deeplab-pytorch: it takes BGR minus a mean and the largest "
        "logits over three scales",
    ),
    (
        r"(^|\.)classifier\.0\.convs\.",
        "torchvision's DeepLabv3: its head is another pyramid, with batch norms and a pool",
    ),
    (
        r"(^|\.)(decode_head|auxiliary_head)\.",
        "a network of MMSegmentation (decode_head): its heads, and often its backbone, are others",
    ),
    (
        r"(^|\.)layer5\.(conv2d_list\.0\.0\.|bottleneck\.|head\.)",
        "the DeepLabv2 of ProDA: its head has group norms, one branch more and a 1×1 convolution",
    ),
    (
        r"(^|\.)(aspp\.aspp1\.|decoder\.last_conv\.)",
        "a DeepLabv3+: its head has a decoder and a pyramid with batch norms",
    ),
)  # fmt: skip

_HEAD = "model.layer5.conv2d_list."
_FIRST = {
    "deeplabv2_resnet101": ("model.conv1", "model.bn1"),
    "deeplabv2_demo": ("model.conv1", "model.bn1"),
    "deeplabv2_small": ("model.conv1", "model.bn1"),
    "deeplabv2_vgg16_bn": ("features.0", "features.1"),
    "fcn_vgg16_bn": ("block1.0", "block1.1"),
}
# Correlations in photographs, between neighbouring pixels and between colours, roughly.
_PIXELS, _COLOURS = 0.95, 0.95
# Strengths of inputs: normalised ones have about 0.4 to 1.2, levels minus a mean 30 to 65.
_NORMALISED = (0.0, 3.0)
_LEVELS = (15.0, 300.0)
_DRAWN_STD = 0.01


class Found(NamedTuple):
    """A network in our terms, and sentences on what was changed for that."""

    arrays: Arrays
    notes: tuple[str, ...]


def refuse_other_families(names: Iterable[str]) -> None:
    """Raise UserError for a network that is known to be another one, saying which."""
    for name in names:
        for pattern, what in _FAMILIES:
            if re.search(pattern, name):
                raise UserError(f"{name} shows that it is {what}; this cannot be converted")


def final_head(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """The entries with one head, layer5, and those of the head on layer3 that are left out.

    Networks with two heads call them layer5 (on layer3, for training) and layer6 (on layer4).
    """
    last = re.compile(r"^(model\.)?layer6\.conv2d_list\.")
    if not any(last.match(name) for name in arrays):
        return arrays, {}
    early = re.compile(r"^(model\.)?layer5\.")
    left = {name: array for name, array in arrays.items() if early.match(name)}
    kept = {
        name.replace("layer6.", "layer5.", 1) if last.match(name) else name: array
        for name, array in arrays.items()
        if name not in left
    }
    return kept, left


def in_our_terms(arch: str, arrays: Arrays, *, foreign: bool, alone: bool) -> Found:
    """A network that takes normalised RGB and sums all branches, equal to the given one.

    arrays: a network's entries under the authors' names, float32; the head may be missing.
    foreign: whether the names are those of other repositories (no "model." before a ResNet with a
    head, or two heads), so that the network has to be proven to be what it is taken for. alone:
    whether no teacher and no momentum belong to it, which would not fit the changed weights.

    What takes BGR levels minus Caffe's mean gets another first kernel: its input channels in the
    order RGB and times 255 · std. The difference of the means goes into the running mean behind
    it. The two are equal for all pixels of an image. Around the image both pad with zeros, which
    stand for grey levels that differ by 1.0, 0.4 and 0.5. Branches that are not used become zeros.

    Raises UserError, saying what differs, where that cannot be told or not be done.
    """
    strength = input_strength(arch, arrays)
    takes_levels = strength is not None and _LEVELS[0] < strength < _LEVELS[1]
    if not takes_levels and not foreign:
        return Found(arrays, ())
    if takes_levels and not alone:
        raise UserError(
            "its first convolution takes levels of 0..255 instead of normalised colours; the "
            "weights of such a network can be converted, but not with a teacher or momentum: save "
            "the state_dict alone"
        )
    if not takes_levels and (strength is None or not strength < _NORMALISED[1]):
        seen = "is constant" if strength is None else f"fits inputs of strength {strength:.2g}"
        raise UserError(
            "it has the names of the DeepLabv2 of AdaptSegNet and its successors, most of which "
            "take BGR minus a mean and some of which sum two of the four branches; its first "
            f"running variance {seen}, which does not tell what it takes, so it is refused. If it "
            "is of this method's authors, put 'model.' before its names"
        )
    notes = []
    if _HEAD + "0.weight" in arrays:
        idle = idle_branches(arrays)
        if idle is None:
            raise UserError(
                "it has the names of the DeepLabv2 of AdaptSegNet and its successors, some of "
                "which sum two of the four branches of the head and others all: the numbers do "
                "not tell which, so it is refused; take a file of a trained network"
            )
        if idle:
            arrays = _without_branches(arrays, idle)
            notes.append("branches 2 and 3 of the head were never trained: zeros now")
    if takes_levels:
        arrays = _folded(arch, arrays)
        notes.append(
            "its inputs are BGR levels minus Caffe's mean: order, scale and mean were folded into "
            "the first convolution and its norm, so that it takes normalised RGB like the others; "
            "equal but for the zeros around the image, which stand for 1 level more or less"
        )
    else:
        notes.append(
            "by the strength of its first convolution it takes normalised colours, as the authors' "
            "networks do"
        )
    return Found(arrays, tuple(notes))


def refuse_merged_norms(arch: str, arrays: Arrays) -> None:
    """Raise UserError where the running statistics are constant though the norms were trained.

    Caffe2's and Detectron's ImageNet networks (BGR minus a mean) are published like that.
    """
    norm = _FIRST[arch][1]
    statistics = (arrays[f"{norm}.running_mean"], arrays[f"{norm}.running_var"])
    if all(np.ptp(x) == 0 for x in statistics) and np.ptp(arrays[f"{norm}.weight"]) > 0:
        raise UserError(
            f"{norm}.running_mean and running_var are constant though its weights are not: the "
            "norms were merged into factors, as Caffe2 and Detectron do, whose networks take BGR "
            "minus a mean; nothing in it tells what it takes, so it is refused: take torchvision's"
        )


def input_strength(arch: str, arrays: Arrays) -> float | None:
    """The standard deviation of the inputs that the first convolution was trained on, roughly.

    None where the running variance behind it says nothing, being constant. Over 12 photographs
    and several kinds of kernels the estimate was 0.6 to 1.1 times the true value.
    """
    convolution, norm = _FIRST[arch]
    variance = arrays[f"{norm}.running_var"].astype(np.float64)
    if np.ptp(variance) == 0:
        return None
    kernel = arrays[f"{convolution}.weight"].astype(np.float64)
    offsets = np.arange(kernel.shape[-1])
    pixels = _PIXELS ** np.abs(offsets[:, None] - offsets)
    colours = np.full((3, 3), _COLOURS) + (1 - _COLOURS) * np.eye(3)
    expected = np.einsum(
        "ocij,cd,ik,jl,odkl->o", kernel, colours, pixels, pixels, kernel, optimize=True
    )
    seen = (expected > 0) & (variance > 0)
    return float(np.sqrt(np.median(variance[seen] / expected[seen]))) if seen.any() else None


def idle_branches(arrays: Arrays) -> tuple[int, ...] | None:
    """The branches of the head that are not used: () or (2, 3). None where that cannot be told.

    A branch that is not used is as it was drawn: normal with a standard deviation of 0.01, the
    bias within ±1/√fan_in. The biases of used branches get the same gradients, so they differ by no
    more than when they were drawn.
    """
    kernels = [arrays[f"{_HEAD}{i}.weight"] for i in range(4)]
    biases = [arrays[f"{_HEAD}{i}.bias"] for i in range(4)]
    bound = 1.001 / np.sqrt(np.prod(kernels[0].shape[1:]))
    drawn = tuple(
        i
        for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
        if _is_as_drawn(kernel) and np.abs(bias).max() <= bound
    )
    if drawn not in ((), (2, 3)):
        return None
    used = np.stack([biases[i] for i in range(4) if i not in drawn])
    return drawn if np.ptp(used, axis=0).max() <= 2 * bound else None


def _is_as_drawn(kernel: np.ndarray) -> bool:
    """Whether the numbers are normal with the standard deviation that such heads are drawn with."""
    values = kernel.astype(np.float64).ravel() / _DRAWN_STD
    std = values.std()
    # Five standard errors of the deviation and of the kurtosis of as many drawn numbers.
    if abs(std - 1) > 5 / np.sqrt(2 * values.size):
        return False
    kurtosis = np.mean(((values - values.mean()) / std) ** 4) - 3
    return bool(abs(kurtosis) <= 5 * np.sqrt(24 / values.size))


def _without_branches(arrays: Arrays, idle: tuple[int, ...]) -> Arrays:
    names = [f"{_HEAD}{i}.{kind}" for i in idle for kind in ("weight", "bias")]
    return arrays | {name: np.zeros_like(arrays[name]) for name in names}


def _folded(arch: str, arrays: Arrays) -> Arrays:
    """The network of BGR levels minus CAFFE_MEAN as one of normalised RGB."""
    convolution, norm = _FIRST[arch]
    kernel = arrays[f"{convolution}.weight"].astype(np.float64)[:, ::-1]
    levels = 255 * np.array([IMAGENET_MEAN, IMAGENET_STD])
    constant = np.einsum("ocij,c->o", kernel, levels[0] - CAFFE_MEAN[::-1])
    mean = arrays[f"{norm}.running_mean"] - constant
    return arrays | {
        f"{convolution}.weight": (kernel * levels[1][:, None, None]).astype(np.float32),
        f"{norm}.running_mean": mean.astype(np.float32),
    }
