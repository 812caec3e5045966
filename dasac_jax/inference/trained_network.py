"""Trained networks: found in a run's folders, checked, and applied to images in numpy."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.files import BEST, CONFIG_FILE, NEWEST, seed_folders
from dasac_jax.inference import predictor
from dasac_jax.inference.streaming import prefetch
from dasac_jax.models import matching
from dasac_jax.models.shapes import variable_shapes

_LOG = logging.getLogger(__name__)

_COLLECTIONS = ("params", "batch_stats")
_STAGES = ("adapt", "baseline")  # of a work directory, the first of these that exists is opened

Variables = dict[str, Any]
Networks = dict[str, Variables]
Facts = dict[str, Any]


def open_checkpoint(path: Path | str) -> tuple[nn.Module, Networks, Facts]:
    """The network of a checkpoint, its weights, and its metadata.

    path: a run's work directory (its adaptation, else its baseline), a stage's folder, a folder
    of steps such as a converted checkpoint (its newest undamaged step), or one step's folder. Of
    a stage's best and newest states, the run's option `select` decides which is taken.

    Returns the module, {"student": variables} with "teacher" where the checkpoint has one that was
    trained, and the stored metadata with "step" added. Variables are {"params", "batch_stats"} of
    numpy arrays. Raises UserError where there is no checkpoint, where its network is unknown, where
    its arrays are not that network's, and where they are not finite.
    """
    path = Path(path)
    arrays, facts = _read(path)
    for key in ("arch", "num_classes"):
        if key not in facts:
            raise UserError(f"checkpoint {path} does not say its {key}: it is not of this package")
    for key in ("class_names", "palette"):
        if facts.get(key) and len(facts[key]) != int(facts["num_classes"]):
            raise UserError(
                f"checkpoint {path} has {facts['num_classes']} classes, but says {key} of "
                f"{len(facts[key])}: it was changed; take another copy"
            )
    try:
        model = models.create_model(
            facts["arch"], int(facts["num_classes"]), jnp.dtype(facts.get("dtype", "float32"))
        )
    except UserError as error:
        raise UserError(f"checkpoint {path} holds an unknown network: {error}") from error
    networks = {"student": arrays}
    # A checkpoint of the baseline holds a teacher, too, but one that was never trained.
    if "teacher" in arrays and facts.get("stage") != "baseline":
        networks["teacher"] = arrays["teacher"]
    shapes = variable_shapes(facts["arch"], int(facts["num_classes"]))
    networks = {name: _fitted(path, name, given, shapes) for name, given in networks.items()}
    if facts.get("drawn"):
        _LOG.warning(
            "checkpoint %s: %s comes from no training, so predictions mean nothing yet",
            path, ", ".join(facts["drawn"]),
        )  # fmt: skip
    if "step" in arrays:
        facts = {**facts, "step": int(arrays["step"])}
    return model, networks, facts


def choose(networks: Networks, path: Path | str, *, teacher: bool = False) -> Variables:
    """The student's variables or the teacher's. Raises UserError where there is no teacher."""
    if not teacher:
        return networks["student"]
    if "teacher" not in networks:
        raise UserError(
            f"checkpoint {path} has no trained teacher: only the adaptation trains one; "
            "ask for the student"
        )
    return networks["teacher"]


def classes(facts: Facts) -> tuple[labels.Class, ...]:
    """The classes of a checkpoint, with names and colours, by train id."""
    colours = class_palette(facts).tolist()
    named = zip(class_names(facts), colours, strict=True)
    return tuple(labels.Class(name, i, i, tuple(rgb)) for i, (name, rgb) in enumerate(named))


def class_names(facts: Facts) -> tuple[str, ...]:
    """The names of the classes: stored ones, else Cityscapes' for 19, else "class 0" and so on."""
    count = int(facts["num_classes"])
    if facts.get("class_names"):
        return tuple(facts["class_names"])
    if count == labels.NUM_CLASSES:
        return labels.CLASS_NAMES
    return tuple(f"class {i}" for i in range(count))


def class_palette(facts: Facts) -> np.ndarray:
    """(C, 3) uint8 RGB: stored colours, else Cityscapes', and random ones for further classes."""
    count = int(facts["num_classes"])
    if facts.get("palette"):
        return np.asarray(facts["palette"], np.uint8)[:count]
    # From a fixed seed, so that a class has the same colour in every call.
    drawn = np.random.default_rng(0).integers(64, 256, (count, 3), np.uint8)
    known = labels.palette()[: labels.NUM_CLASSES]
    return np.concatenate([known, drawn[len(known) :]])[:count]


class Network:
    """A trained network that predicts images; it may be called from any number of threads.

    class_names: the classes' names in the order of train ids. palette: their colours, (C, 3)
    uint8. facts: the checkpoint's metadata.
    """

    def __init__(self, model: nn.Module, variables: Variables, facts: Facts) -> None:
        self.class_names = class_names(facts)
        self.palette = class_palette(facts)
        self.facts = dict(facts)
        self._predict = predictor.create(model, variables, predictor.Options())

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Train ids, uint8, and their probabilities, float32: (H, W) for an image, else (B, H, W).

        images: (H, W, 3) or (B, H, W, 3) uint8 RGB of any size; each size is compiled once. As
        many images as there are devices are predicted at a time. Raises UserError for another
        shape or type, and for results that are not finite.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise UserError(
                "an image is an array (H, W, 3) or (B, H, W, 3) of uint8, got "
                f"{images.shape} of {images.dtype}"
            )
        if not images.size:
            raise UserError(f"there is no pixel in an array of shape {images.shape}")
        batch = images.reshape(-1, *images.shape[-3:])
        size = predictor.batch_size(predictor.Options())
        started = (self._predict(batch[i : i + size]) for i in range(0, len(batch), size))
        found = [wait() for wait in prefetch(started)]
        labels = np.concatenate([part.labels for part in found])
        confidence = np.concatenate([part.confidence for part in found])
        predictor.check_finite(confidence, f"{len(batch)} images")
        return (labels, confidence) if images.ndim == 4 else (labels[0], confidence[0])


def load(path: Path | str, *, teacher: bool = False) -> Network:
    """The student, or the teacher, of a checkpoint; `open_checkpoint` explains `path`."""
    model, networks, facts = open_checkpoint(path)
    return Network(model, choose(networks, path, teacher=teacher), facts)


def _read(path: Path) -> tuple[dict[str, Any], Facts]:
    """The arrays and the metadata of the checkpoint that a path stands for."""
    if not path.is_dir():
        if path.is_file():
            raise UserError(
                f"{path} is a file: give a folder that a run has written, or that "
                "convert_torch_weights.py has made of a .pth or .safetensors file"
            )
        raise UserError(f"there is no checkpoint {path}: give a folder that a run has written")
    if store.latest_step(path) is not None:
        return store.read(path)
    stages = (path, *(path / name for name in _STAGES))
    folder = store.first_with_steps(folder for stage in stages for folder in _in_order(stage))
    if folder is not None:
        return store.read(folder)
    if seeds := seed_folders(path):
        raise UserError(
            f"{path} holds a run for each of the seeds {', '.join(map(str, seeds))}: give one of "
            f"them, such as {next(iter(seeds.values()))}"
        )
    raise UserError(
        f"there is no checkpoint in {path}: give a run's work directory, a stage's folder "
        "(RUN/adapt), a folder of steps or one step's folder"
    )


def _in_order(stage: Path) -> tuple[Path, Path]:
    """A stage's two folders of steps, first the one that the run's `select` names."""
    newest, best = stage / NEWEST, stage / BEST
    config = stage.parent / CONFIG_FILE
    try:
        select = json.loads(config.read_text(encoding="utf-8")).get("select")
    except FileNotFoundError:
        select = None  # the stage's folder was copied out of its run
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{config} cannot be read ({error}): give a folder of steps") from error
    return (newest, best) if select == "last" else (best, newest)


def _fitted(
    path: Path, name: str, given: dict[str, Any], needed: dict[str, tuple[int, ...]]
) -> Variables:
    """The network's collections out of `given`.

    Raises UserError where names or shapes differ, and where numbers are not finite.
    """
    stored = flatten_dict({key: given.get(key, {}) for key in _COLLECTIONS}, sep="/")
    phrases = matching.described(stored, needed, needs="needed is")
    if phrases:
        raise UserError(
            f"the {name} in checkpoint {path} is not of the network that it names: it "
            + matching.shortened(phrases)
        )
    matching.check_finite(path, {f"{name}'s {key}": array for key, array in stored.items()})
    return {key: given.get(key, {}) for key in _COLLECTIONS}
