"""The configuration that every recipe in `configs/` starts from, and its checks."""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from dasac_jax.data import classes
from dasac_jax.data.labels import SYNTHIA_LEFT_OUT
from dasac_jax.errors import UserError
from dasac_jax.method.settings import Settings
from dasac_jax.models.dinov2 import PATCH

STAGES = ("baseline", "weights", "adapt")


def base() -> ConfigDict:
    """Adaptation from GTA5 with ResNet-101, as published; recipes change what differs."""
    config = ConfigDict()
    config.seed = 0
    config.stages = "baseline,weights,adapt"  # those to run, in this order
    config.arch = "deeplabv2_resnet101"
    config.dtype = "float32"  # or "bfloat16": what the network computes in
    config.remat = False  # compute activations anew for the gradient instead of keeping them
    # Checkpoint that the first stage starts from; empty: random weights.
    config.init = "weights/resnet101_imagenet"
    config.init_from = "resnet101-5d3b4d8f.pth from https://download.pytorch.org/models/"
    config.left_out = ()  # train ids that the mean IoU leaves out, and class sampling too

    config.data = _data()
    config.optimiser = _optimiser()
    config.baseline = _baseline()
    config.adapt = _adapt()

    # Snapshot that a stage hands on: "last" needs no target label, "best" has the best mIoU on the
    # labelled selection split, as published.
    config.select = "best"
    config.validate_every_epochs = 2
    config.validation_batch = 4  # over all devices
    config.checkpoint_every_steps = 500
    config.checkpoint_every_minutes = 10.0  # 0: never for the time alone
    config.max_minutes = 0.0  # after which the command saves and ends; 0: no limit
    config.max_skipped_steps = 10  # in a row, their loss or gradient not being finite
    config.log_every_steps = 50
    config.loader_threads = 8
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    data.root = "data"  # empty: <workdir>/data
    data.source = "gta5"  # or "synthia", "custom"
    data.source_size = (1052, 1914)  # (h, w) in pixels
    data.target_size = (1024, 2048)
    data.tfds = ""  # folder of sets by scripts/build_tfds.py; empty: folders below `root`
    data.lists = ""  # folder of list files; empty: splits follow from the folders
    data.source_images = 10000  # the first so many; 0: all
    data.source_held_out = 1000  # of these, for validation on the source
    data.selection_images = 500  # of the target's training images, to select snapshots on
    data.statistics = "gta5"  # colours that the source has: gta5, synthia, none

    data.classes = ConfigDict()  # with source "custom"; empty: Cityscapes' 19, prepared
    data.classes.names = ()
    data.classes.palette = ()  # a colour (red, green, blue), 0..255, for each name
    data.classes.source_ids = ()  # (value in the label files, name); others are ignored
    data.classes.target_ids = ()
    return data


def _optimiser() -> ConfigDict:
    optimiser = ConfigDict()
    optimiser.kind = "sgd"  # or "adam", "adamw"
    optimiser.momentum = 0.9
    optimiser.weight_decay = 5e-4
    # With "adamw", for vision transformers: a rate that rises for so many steps and then falls to 0
    # at the end of the stage; the encoder's share of it; and the share that each of its layers has
    # of the rate of the one behind it.
    optimiser.warmup_steps = 0
    optimiser.encoder_rate = 0.1
    optimiser.layer_decay = 1.0
    return optimiser


def _baseline() -> ConfigDict:
    baseline = ConfigDict()
    baseline.crop = (640, 640)
    baseline.source_batch = 12  # over all devices
    baseline.target_batch = 8
    baseline.learning_rate = 2.5e-4
    baseline.scale = (0.5, 2.0)
    baseline.jitter = 0.5
    baseline.epochs = 100  # passes over the source's training images
    return baseline


def _adapt() -> ConfigDict:
    adapt = ConfigDict()
    adapt.crop = (512, 1024)
    adapt.source_batch = 8  # over all devices
    adapt.groups = 2  # target images in a step, over all devices
    adapt.learning_rate = 2.5e-4
    adapt.epochs = 200  # counted over both stages
    adapt.source_scale = (0.5, 1.0)
    adapt.target_scale = (1.0, 1.1)
    adapt.zoom = (0.5, 1.0)
    adapt.jitter = 0.4
    # The method's own settings stand where it is implemented, each with its meaning.
    adapt.update(dataclasses.asdict(Settings()))
    return adapt


def vgg16_base() -> ConfigDict:
    """`base` with what the published recipes of both networks on VGG-16 share."""
    config = base()
    config.init_from = "vgg16_bn-6c64b313.pth from https://download.pytorch.org/models/"
    config.baseline.source_batch = 16
    config.baseline.target_batch = 2
    config.baseline.jitter = 0.4
    config.adapt.target_weight = 2.0
    config.adapt.threshold_lower = 0.1
    return config


def dinov2_base() -> ConfigDict:
    """`base` with what the recipes of DINOv2 share: a vision transformer trained by AdamW.

    Optimiser, rates, schedule and number of steps are those of VFM-UDA (Englert et al., 2024), the
    method and its settings those of the paper.
    """
    config = base()
    # In bfloat16 a GPU computes attention in one function of cuDNN; on a CPU take float32.
    config.dtype = "bfloat16"
    config.optimiser.kind = "adamw"
    config.optimiser.weight_decay = 0.01
    config.optimiser.warmup_steps = 1500
    config.baseline.source_batch = 8
    config.baseline.learning_rate = 1.41e-4  # 5e-5 · √8
    config.baseline.epochs = 18  # 20,250 steps of 8 of GTA5's images
    config.adapt.learning_rate = 1.41e-4
    config.adapt.epochs = 54  # 40,500 more
    return config


def use_dinov2(config: ConfigDict, arch: str) -> None:
    """Take a network of DINOv2, and its published weights to start from."""
    config.arch = arch
    config.init = f"weights/{arch}"
    names = {"dinov2_vits14": "small", "dinov2_vitb14": "base", "dinov2_vitl14": "large"}
    config.init_from = f"model.safetensors of facebook/dinov2-{names[arch]} on huggingface.co"


def use_synthia(config: ConfigDict) -> None:
    """Take SYNTHIA instead of GTA5 as the source; the mean is over the 16 classes that it has."""
    config.data.source = "synthia"
    config.data.source_size = (760, 1280)
    config.data.source_images = 0
    config.data.source_held_out = 400
    # `data.statistics` stays "gta5": the authors' runs used GTA5's for SYNTHIA as well.
    config.left_out = SYNTHIA_LEFT_OUT


def demo_data() -> ConfigDict:
    """What the built-in demo renders: `config.demo` of recipes whose data are rendered."""
    demo = ConfigDict()
    demo.height = 128
    demo.width = 256
    demo.num_source = 400
    demo.num_train = 200
    demo.num_val = 100
    demo.num_test = 20
    return demo


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key: {"adapt.crop": (512, 1024), …}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def stages(config: ConfigDict) -> tuple[str, ...]:
    """The stages to run. Raises UserError for unknown or misordered ones."""
    names = tuple(name.strip() for name in config.stages.split(",") if name.strip())
    if not names or list(names) != [stage for stage in STAGES if stage in names]:
        raise UserError(
            f"config.stages is {config.stages!r}: give some of {','.join(STAGES)}, in this order"
        )
    return names


def check_keys(config: ConfigDict) -> None:
    """Raise UserError for a key that means nothing, naming the closest, and for one that lacks."""
    flat, known = flatten(config), flatten(base())
    if "demo" in config:
        known |= flatten(ConfigDict({"demo": demo_data()}))
    for key in sorted(flat.keys() - known.keys()):
        (closest,) = difflib.get_close_matches(key, known, n=1, cutoff=0)
        raise UserError(f"config.{key}: there is no such key; the closest is config.{closest}")
    for key in sorted(known.keys() - flat.keys()):
        raise UserError(f"config.{key} is missing: begin with dasac_jax.config.base()")


def check(config: ConfigDict) -> None:
    """Raise UserError for the first key or value that cannot work, naming its key."""
    check_keys(config)
    flat = flatten(config)
    for key, problem in _problems(config, flat):
        raise UserError(f"config.{key} is {flat[key]!r}: {problem}")
    both = {"baseline", "adapt"} <= set(stages(config))
    if both and config.select == "last" and config.adapt.epochs <= config.baseline.epochs:
        raise UserError(
            f"config.adapt.epochs is {config.adapt.epochs}: epochs count over both stages, give "
            f"more than config.baseline.epochs, {config.baseline.epochs}"
        )


_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "select": ("best", "last"),
    "data.source": ("gta5", "synthia", classes.CUSTOM),
    "data.statistics": ("gta5", "synthia", "none"),
    "optimiser.kind": ("sgd", "adam", "adamw"),
    "adapt.pool": ("average", "minentropy", "none"),
    "adapt.confidence_weighting": ("pixel", "batch", "none"),
}
_SIZES = ("baseline.crop", "adapt.crop", "data.source_size", "data.target_size")
_RANGES = ("baseline.scale", "adapt.source_scale", "adapt.target_scale", "adapt.zoom")
_SHARES = (
    "optimiser.momentum", "optimiser.encoder_rate", "optimiser.layer_decay",
    "adapt.teacher_momentum", "adapt.prior_momentum",
    "adapt.threshold_upper", "adapt.threshold_lower",
)  # fmt: skip
_MAY_BE_ZERO = {
    "seed", "checkpoint_every_minutes", "max_minutes",
    "data.source_images", "data.source_held_out", "data.selection_images",
    "optimiser.momentum", "optimiser.weight_decay", "optimiser.warmup_steps",
    "baseline.jitter",
    "adapt.jitter", "adapt.target_weight", "adapt.phase_in_steps", "adapt.focal_power",
    "adapt.threshold_lower", "adapt.confidence_images",
}  # fmt: skip


def _problems(config: ConfigDict, flat: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with its value). Later checks rely on what earlier ones found right."""
    for key, allowed in _CHOICES.items():
        if flat[key] not in allowed:
            yield key, f"choose one of {', '.join(allowed)}"
    for key, problem in classes.problems(config.data.source, config.data.classes):
        yield f"data.classes.{key}", problem
    for key in _SIZES + _RANGES:
        if problem := _pair_problem(key, flat[key]):
            yield key, problem
    num_classes = len(classes.of(config.data))
    if not all(isinstance(c, int) and 0 <= c < num_classes for c in config.left_out):
        yield "left_out", f"train ids from 0 to {num_classes - 1} are needed"
    if len(set(config.left_out)) == num_classes:
        yield "left_out", "no class remains"
    if config.data.source == classes.CUSTOM and not config.data.lists:
        yield "data.lists", "your own data need list files: give their folder"
    if config.optimiser.warmup_steps and config.optimiser.kind != "adamw":
        yield "optimiser.warmup_steps", "only adamw has a warm-up: leave it at 0"
    for key in ("baseline.crop", "adapt.crop"):
        if config.arch.startswith("dinov2") and min(flat[key]) < PATCH:
            yield key, f"DINOv2's patches need at least {PATCH} pixels a side"
    if config.seed >= 2**32:
        yield "seed", "a whole number below 2**32 is needed"
    for key in _SHARES:
        if flat[key] > 1:
            yield key, "a number from 0 to 1 is needed"
    for key, value in flat.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (problem := _number_problem(key, value)):
            yield key, problem


def _pair_problem(key: str, pair: Sequence[Any]) -> str | None:
    whole = key in _SIZES
    types = (int,) if whole else (int, float)
    if len(pair) != 2 or not all(isinstance(v, types) and v > 0 for v in pair):
        kind = "whole numbers, height and width" if whole else "numbers"
        return f"two positive {kind} are needed"
    if not whole and pair[0] > pair[1]:
        return "the lower end comes first"
    return None


def _number_problem(key: str, value: float) -> str | None:
    if not math.isfinite(value):
        return "a finite number is needed"
    if key in _MAY_BE_ZERO:
        return "it is negative" if value < 0 else None
    return "a positive number is needed" if value <= 0 else None
