"""Sizes, crops, batches and epochs for data of one's own, and why these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from dasac_jax.errors import UserError
from dasac_jax.own_data.survey import Size, size_text

_MULTIPLE = 8  # pixels: the networks' stride
SMALLEST_CROP = 32
"""Pixels: of a smaller picture the networks keep less than 4 × 4 places."""

_MIB = 2**20
# MiB that a step takes per megapixel of its images and views in float32, weights included:
# docs/memory.md for ResNet-101, and what XLA announced for the demo's network, with a fifth to
# spare.
_MIB_PER_MEGAPIXEL = {"deeplabv2_resnet101": 5000, "deeplabv2_demo": 600}
_USED = 0.8  # of the memory
_VIEWS = 4  # of a target image in a step of the adaptation
_MOST_PIXELS = {"deeplabv2_resnet101": 1024 * 2048, "deeplabv2_demo": 192 * 256}
_STEPS = {"deeplabv2_resnet101": (20000, 10000), "deeplabv2_demo": (1500, 500)}
_MOST_EPOCHS = 1000
_BATCHES = {"deeplabv2_resnet101": (8, 4), "deeplabv2_demo": (4, 4)}


class Machine(NamedTuple):
    """What trains: whether there is an accelerator, how many devices, bytes of memory of each."""

    accelerator: bool
    devices: int
    memory: int


class Choice(NamedTuple):
    """What a recipe sets, by dotted keys, and the reasons in words."""

    values: dict[str, Any]
    reasons: tuple[str, ...]


def choose(source: Sequence[Size], target: Sequence[Size], machine: Machine) -> Choice:
    """Settings for images of these sizes on a machine.

    Raises UserError where images are too small for any crop, or too few for the devices.
    """
    arch = "deeplabv2_resnet101" if machine.accelerator else "deeplabv2_demo"
    reasons = [
        "ResNet-101, since there is an accelerator"
        if machine.accelerator
        else "the demo's small network from random weights, since there is no accelerator here"
    ]
    most = _MOST_PIXELS[arch]
    values: dict[str, Any] = {"arch": arch}
    for domain, sizes in (("source", source), ("target", target)):
        middle = (round(median(s[0] for s in sizes)), round(median(s[1] for s in sizes)))
        size = _shrunk(middle, most)
        _check_size(domain, middle, size)
        values[f"data.{domain}_size"] = size
        reasons.append(
            f"data.{domain}_size {size_text(size)}: "
            + _why_size(len(sizes), len(set(sizes)), middle, size)
        )
    batch, note = _batches(arch, len(source), machine.devices)
    values |= batch
    reasons += note
    crops, why = _crops(values, _room(arch, machine), machine.devices)
    values |= crops
    reasons.append(why)
    smaller = sum(s[0] < crops["adapt.crop"][0] or s[1] < crops["adapt.crop"][1] for s in target)
    if smaller:
        reasons.append(
            f"{smaller} of {len(target)} target images are smaller than the crop of "
            f"{size_text(crops['adapt.crop'])} and are enlarged to it"
        )
    for stage, steps in zip(("baseline", "adapt"), _STEPS[arch], strict=True):
        per_epoch = len(source) // values[f"{stage}.source_batch"]
        values[f"{stage}.epochs"] = min(_MOST_EPOCHS, max(1, round(steps / per_epoch)))
    values["adapt.epochs"] += values["baseline.epochs"]  # counted over both stages
    return Choice(values, tuple(reasons))


def _shrunk(size: Size, most: int) -> Size:
    """A size in multiples of 8 near `size`, with at most about `most` pixels."""
    factor = min(1.0, math.sqrt(most / (size[0] * size[1])))
    height, width = (max(_MULTIPLE, round(side * factor / _MULTIPLE) * _MULTIPLE) for side in size)
    return height, width


def _check_size(domain: str, middle: Size, size: Size) -> None:
    if min(size) < SMALLEST_CROP:
        raise UserError(
            f"{domain} images of {size_text(middle)} pixels, the median, are smaller than the "
            f"smallest crop, {SMALLEST_CROP}×{SMALLEST_CROP}: enlarge them, or leave out the small "
            "ones"
        )


def _why_size(count: int, kinds: int, middle: Size, size: Size) -> str:
    text = f"the size of all {count} images" if kinds == 1 else f"the median of {count} images"
    if size == middle:
        return text
    if size[0] * size[1] > 0.9 * middle[0] * middle[1]:
        return f"{text}, {size_text(middle)}, in multiples of {_MULTIPLE}"
    return f"{text}, {size_text(middle)}, made smaller to suit this machine"


def _batches(arch: str, images: int, devices: int) -> tuple[dict[str, int], list[str]]:
    """Batch sizes that the devices can share and the source fills, and why they are small."""
    wanted = [max(devices, batch // devices * devices) for batch in _BATCHES[arch]]
    largest = images // devices * devices
    if not largest:
        raise UserError(
            f"{images} source images are fewer than the smallest batch of {devices} devices: give "
            f"at least {devices} images, or let JAX see at most {images} devices"
        )
    taken = [min(batch, largest) for batch in wanted]
    # Each device takes whole images' views, or an equal part of those of one image.
    groups = next(n for n in range(1, devices + 1) if n * _VIEWS % devices == 0)
    values = {
        "baseline.source_batch": taken[0],
        "baseline.target_batch": taken[0],
        "adapt.source_batch": taken[1],
        "adapt.groups": groups,
    }
    if taken == wanted:
        return values, []
    note = f"batches of {taken[0]}: {images} source images do not fill one of {wanted[0]}"
    return values, [note]


def _room(arch: str, machine: Machine) -> float:
    """Pixels that the images and views of a step may have on one device."""
    return _USED * machine.memory / _MIB / _MIB_PER_MEGAPIXEL[arch] * 1e6


def _crops(values: dict[str, Any], room: float, devices: int) -> tuple[dict[str, Any], str]:
    """The crops of both stages: as large as the images, or what fits the memory."""
    images = 2 * values["baseline.source_batch"] / devices
    shorter = min(values["data.source_size"])
    side = min(0.75 * shorter, math.sqrt(room / images))
    side = max(SMALLEST_CROP, int(side) // _MULTIPLE * _MULTIPLE)
    views = (values["adapt.source_batch"] + _VIEWS * values["adapt.groups"]) / devices
    target = values["data.target_size"]
    half = 512 * 1024  # pixels, as published
    most = int(min(room / views, max(half, target[0] * target[1] / 4)))
    crop = _shrunk(target, min(most, target[0] * target[1]))
    crops = {"baseline.crop": (side, side), "adapt.crop": crop}
    first = "three quarters of the source's shorter side" if side >= 0.7 * shorter else "smaller"
    second = "the whole target image" if crop == target else "smaller than target images"
    why = f"crops {size_text((side, side))} ({first}) and {size_text(crop)} ({second})"
    return crops, (
        f"{why}: this fits the memory, which has room for "
        f"about {room / 1e6:.1f} megapixels of a step on a device"
    )
