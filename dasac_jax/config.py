"""The configuration that every recipe in `configs/` starts from, and its checks."""

import difflib
import math
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dasac_jax.data import classes
from dasac_jax.errors import UserError

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

    config.data = ConfigDict()
    config.data.root = "data"  # empty: <workdir>/data
    config.data.source = "gta5"  # or "synthia", "custom"
    config.data.source_size = (1052, 1914)  # (h, w) in pixels
    config.data.target_size = (1024, 2048)
    config.data.tfds = ""  # folder of sets by scripts/build_tfds.py; empty: the folders
    config.data.lists = ""  # folder of list files; empty: splits follow from the folders
    config.data.source_images = 10000  # the first so many; 0: all
    config.data.source_held_out = 1000  # of these, for validation on the source
    config.data.selection_images = 500  # of the target's training images, to select snapshots on
    config.data.statistics = "gta5"  # colours that the source has: gta5, synthia, none

    config.data.classes = ConfigDict()  # with source "custom"; empty: Cityscapes' 19, prepared
    config.data.classes.names = ()
    config.data.classes.palette = ()  # a colour (red, green, blue), 0..255, for each name
    config.data.classes.source_ids = ()  # (value in the label files, name); others are ignored
    config.data.classes.target_ids = ()

    config.optimiser = ConfigDict()
    config.optimiser.kind = "sgd"  # or "adam"
    config.optimiser.momentum = 0.9
    config.optimiser.weight_decay = 5e-4

    config.baseline = ConfigDict()
    config.baseline.crop = (640, 640)
    config.baseline.source_batch = 12  # over all devices
    config.baseline.target_batch = 8
    config.baseline.learning_rate = 2.5e-4
    config.baseline.scale = (0.5, 2.0)
    config.baseline.jitter = 0.5
    config.baseline.epochs = 100  # passes over the source's training images

    config.adapt = ConfigDict()
    config.adapt.crop = (512, 1024)
    config.adapt.source_batch = 8  # over all devices
    config.adapt.groups = 2  # target images a step, over all devices
    config.adapt.group_size = 4  # views of each
    config.adapt.learning_rate = 2.5e-4
    config.adapt.epochs = 200  # counted over both stages
    config.adapt.source_scale = (0.5, 1.0)
    config.adapt.target_scale = (1.0, 1.1)
    config.adapt.zoom = (0.5, 1.0)
    config.adapt.jitter = 0.4
    config.adapt.target_weight = 5.0  # λ_t, of the target loss
    config.adapt.phase_in_steps = 0  # steps in which λ_t grows from 0
    config.adapt.train_on_source = True
    config.adapt.teacher_every_steps = 100  # within an epoch
    config.adapt.teacher_momentum = 0.99  # γ
    config.adapt.prior_momentum = 0.99
    config.adapt.beta = 1e-3  # β
    config.adapt.focal_power = 3.0  # λ
    config.adapt.threshold_upper = 0.75
    config.adapt.threshold_lower = 0.2
    config.adapt.pool = "average"  # or "minentropy", "none"
    config.adapt.discount = True
    config.adapt.confidence_weighting = "pixel"  # the authors' code: "batch"; or "none"
    config.adapt.confidence_images = 0  # views that "batch" averages over; 0: all
    config.adapt.accumulate = 1  # parts that a device takes its batch in

    # Snapshot handed on: "last" needs no target label, "best" has the best mIoU on the labelled
    # selection split, as published.
    config.select = "best"
    config.validate_every_epochs = 2
    config.validation_batch = 4  # over all devices
    config.checkpoint_every_steps = 500
    config.checkpoint_every_minutes = 10.0  # 0: never for the time alone
    config.max_minutes = 0.0  # after which a start saves and ends; 0: no limit
    config.max_skipped_steps = 10  # in a row, their loss or gradient not being finite
    config.log_every_steps = 50
    config.loader_threads = 8
    return config


def demo_data() -> ConfigDict:
    """What the built-in demo renders: `config.demo` of recipes that bring their own data."""
    demo = ConfigDict()
    demo.height = 128
    demo.width = 256
    demo.num_source = 400
    demo.num_train = 200
    demo.num_val = 100
    demo.num_test = 20
    return demo


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """{"adapt.crop": (512, 1024), …}."""
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


def check(config: ConfigDict) -> None:
    """Raise UserError for the first value that cannot work, naming its key."""
    choices = {
        "dtype": ("float32", "bfloat16"),
        "select": ("best", "last"),
        "data.source": ("gta5", "synthia", classes.CUSTOM),
        "data.statistics": ("gta5", "synthia", "none"),
        "optimiser.kind": ("sgd", "adam"),
        "adapt.pool": ("average", "minentropy", "none"),
        "adapt.confidence_weighting": ("pixel", "batch", "none"),
    }
    flat = flatten(config)
    for key, allowed in choices.items():
        if flat[key] not in allowed:
            raise UserError(f"config.{key} is {flat[key]!r}: choose one of {', '.join(allowed)}")
    for key, problem in classes.problems(config.data.source, config.data.classes):
        key = f"data.classes.{key}"
        raise UserError(f"config.{key} is {flat[key]!r}: {problem}")
    for key, problem in _problems(flat, len(classes.of(config.data))):
        raise UserError(f"config.{key} is {flat[key]!r}: {problem}")
    both = {"baseline", "adapt"} <= set(stages(config))
    if both and config.select == "last" and config.adapt.epochs <= config.baseline.epochs:
        raise UserError(
            f"config.adapt.epochs is {config.adapt.epochs}: epochs count over both stages, give "
            f"more than config.baseline.epochs, {config.baseline.epochs}"
        )


def _problems(flat: dict[str, Any], num_classes: int) -> Iterator[tuple[str, str]]:
    sizes = ("baseline.crop", "adapt.crop", "data.source_size", "data.target_size")
    ranges = ("baseline.scale", "adapt.source_scale", "adapt.target_scale", "adapt.zoom")
    for key in sizes + ranges:
        value, numbers = flat[key], (int,) if key in sizes else (int, float)
        if len(value) != 2 or not all(isinstance(v, numbers) and v > 0 for v in value):
            kind = "whole numbers, height and width" if key in sizes else "numbers"
            yield key, f"two positive {kind} are needed"
        elif key in ranges and value[0] > value[1]:
            yield key, "the lower end comes first"
    if not all(isinstance(c, int) and 0 <= c < num_classes for c in flat["left_out"]):
        yield "left_out", f"train ids from 0 to {num_classes - 1} are needed"
    if len(set(flat["left_out"])) == num_classes:
        yield "left_out", "no class remains"
    if flat["data.source"] == classes.CUSTOM and not flat["data.lists"]:
        yield "data.lists", "your own data need list files: give their folder"
    if flat["seed"] >= 2**32:
        yield "seed", "a whole number below 2**32 is needed"
    for key in ("optimiser.momentum", "adapt.teacher_momentum", "adapt.prior_momentum"):
        if flat[key] > 1:
            yield key, "a number from 0 to 1 is needed"
    zero_works = ("seed", "weight_decay", "momentum", "phase_in_steps", "confidence_images")
    zero_works += ("jitter", "source_images", "source_held_out", "selection_images")
    zero_works += ("checkpoint_every_minutes", "max_minutes")
    zero_works += ("focal_power", "threshold_lower", "target_weight")
    for key, value in flat.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            allowed = key.rsplit(".", 1)[-1] in zero_works
            if not math.isfinite(value):
                yield key, "a finite number is needed"
            elif value < 0 or (value == 0 and not allowed):
                yield key, "a positive number is needed" if not allowed else "it is negative"


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse the command line; for `absl.app.run`. A mistake ends with one line and code 2."""
    try:
        return _parse(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
    path = _config_path(argv)
    if path is not None and not os.path.isfile(path):
        raise UserError(f"--config: there is no file {path}; recipes lie in configs/")
    if path is not None:
        problem = _unknown_key(argv, path)
        if problem:
            raise UserError(problem)
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; see --help")
    return rest


def _config_path(argv: Sequence[str]) -> str | None:
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config"):
            return argv[i + 1] if i + 1 < len(argv) else None
        if argument.startswith(("--config=", "-config=")):
            return argument.split("=", 1)[1]
    return None


def _unknown_key(argv: Sequence[str], path: str) -> str | None:
    """Name the first override that the recipe lacks, with the closest key that it has."""
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"--config: {path} defines no get_config() and so is no recipe")
    known = flatten(get_config())
    for argument in argv:
        name = argument.lstrip("-").removeprefix("no").split("=", 1)[0]  # --noconfig.x: false
        if not name.startswith("config."):
            continue
        key = name.removeprefix("config.")
        if key not in known:
            close = max(known, key=lambda candidate: _alike(key, candidate))
            return f"--{name}: {path} has no such key; the closest is --config.{close}"
    return None


def _alike(key: str, candidate: str) -> float:
    """How well two dotted keys agree: as a whole, in their sections and in their last parts."""
    pairs = zip([key, *_split(key)], [candidate, *_split(candidate)], strict=True)
    return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _split(key: str) -> tuple[str, str]:
    section, _, name = key.rpartition(".")
    return section, name
