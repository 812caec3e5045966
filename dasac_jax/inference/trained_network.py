"""Trained networks for use: found in a run's folders, checked, and called on numpy images."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.inference import predictor
from dasac_jax.inference.streaming import one_ahead

_LOG = logging.getLogger(__name__)

_COLLECTIONS = ("params", "batch_stats")
_STAGES = ("adapt", "baseline")  # what a work directory is opened for, the first that is there
_CONFIG_FILE = "config.json"
_DIFFERENCES_NAMED = 3

Variables = dict[str, Any]
Networks = dict[str, Variables]
Facts = dict[str, Any]


def open_checkpoint(path: Path | str) -> tuple[nn.Module, Networks, Facts]:
    """The network of a checkpoint, its weights, and what is known of it.

    path: a run's work directory (its adaptation, else its baseline), a stage's folder, a folder
    of steps such as a converted checkpoint (its newest undamaged step), or one step's folder. Of
    a stage's best and newest states the one that the run hands on is taken, by its `select`.

    Returns the module, {"student": variables} and "teacher" where the checkpoint has one that was
    trained, and the stored facts with "step" added. Variables are {"params", "batch_stats"} of
    numpy arrays. Raises UserError where there is no checkpoint, or none of a known network, or
    its arrays are not that network's.
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
    # The baseline carries the teacher along as it was initialised.
    if "teacher" in arrays and facts.get("stage") != "baseline":
        networks["teacher"] = arrays["teacher"]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
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


def class_names(facts: Facts) -> tuple[str, ...]:
    """The names of the classes: stored ones, else Cityscapes' for 19, else "class 0" and so on."""
    count = int(facts["num_classes"])
    if facts.get("class_names"):
        return tuple(facts["class_names"])
    if count == labels.NUM_CLASSES:
        return labels.CLASS_NAMES
    return tuple(f"class {i}" for i in range(count))


def class_palette(facts: Facts) -> np.ndarray:
    """(C, 3) uint8 RGB: stored colours, else Cityscapes', and for further classes drawn ones."""
    count = int(facts["num_classes"])
    if facts.get("palette"):
        return np.asarray(facts["palette"], np.uint8)[:count]
    drawn = np.random.default_rng(0).integers(64, 256, (count, 3), np.uint8)  # always the same
    known = labels.palette()[: labels.NUM_CLASSES]
    return np.concatenate([known, drawn[len(known) :]])[:count]


class Network:
    """A trained network to call on images, from any number of threads.

    class_names: the classes' names in the order of train ids. palette: their colours, (C, 3)
    uint8. facts: what the checkpoint says of itself.
    """

    def __init__(self, model: nn.Module, variables: Variables, facts: Facts) -> None:
        self.class_names = class_names(facts)
        self.palette = class_palette(facts)
        self.facts = dict(facts)
        self._start = predictor.predictor(model, variables, predictor.Options())

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Train ids, uint8, and their probabilities, float32: (H, W) for an image, else (B, H, W).

        images: (H, W, 3) or (B, H, W, 3) uint8 RGB of any size; each size is compiled once. As
        many as there are devices are predicted at a time. Raises UserError for anything else.
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
        waiting = (self._start(batch[i : i + size]) for i in range(0, len(batch), size))
        found = [finish() for finish in one_ahead(waiting)]
        labels = np.concatenate([part.labels for part in found])
        confidence = np.concatenate([part.confidence for part in found])
        return (labels, confidence) if images.ndim == 4 else (labels[0], confidence[0])


def load(path: Path | str, *, teacher: bool = False) -> Network:
    """The student, or the teacher, of a checkpoint; see `open_checkpoint` for what is one."""
    model, networks, facts = open_checkpoint(path)
    return Network(model, choose(networks, path, teacher=teacher), facts)


def _read(path: Path) -> tuple[dict[str, Any], Facts]:
    """Arrays and facts of the checkpoint that a path means."""
    if not path.is_dir():
        raise UserError(f"there is no checkpoint {path}: give a folder that a run has written")
    if store.latest_step(path) is not None:
        return store.read(path)
    for stage in (path, *(path / name for name in _STAGES)):
        for folder in _in_order(stage):
            if store.latest_step(folder) is not None:
                return store.read(folder)
    raise UserError(
        f"there is no checkpoint in {path}: give a run's work directory, a stage's folder "
        "(RUN/adapt), a folder of steps or one step's folder"
    )


def _in_order(stage: Path) -> tuple[Path, Path]:
    """A stage's two folders of steps, first the one that the run hands on."""
    newest, best = stage / "checkpoints", stage / "best"
    config = stage.parent / _CONFIG_FILE
    try:
        select = json.loads(config.read_text(encoding="utf-8")).get("select")
    except FileNotFoundError:
        select = None  # folders that were copied out of a run
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{config} cannot be read ({error}): give a folder of steps") from error
    return (newest, best) if select == "last" else (best, newest)


def _fitted(path: Path, name: str, given: dict[str, Any], shapes: Any) -> Variables:
    """The collections that the network needs out of `given`, names and shapes checked."""
    needed = flatten_dict({key: shapes.get(key, {}) for key in _COLLECTIONS}, sep="/")
    stored = flatten_dict({key: given.get(key, {}) for key in _COLLECTIONS}, sep="/")
    words = [f"lacks {key}" for key in needed if key not in stored]
    words += [f"holds {key}, which is not needed" for key in stored if key not in needed]
    words += [
        f"holds {key} {np.shape(stored[key])}, needed is {leaf.shape}"
        for key, leaf in needed.items()
        if key in stored and np.shape(stored[key]) != leaf.shape
    ]
    if words:
        more = len(words) - _DIFFERENCES_NAMED
        raise UserError(
            f"the {name} in checkpoint {path} is not of the network that it names: it "
            + "; ".join(words[:_DIFFERENCES_NAMED])
            + (f"; and {more} more" if more > 0 else "")
        )
    return {key: given.get(key, {}) for key in _COLLECTIONS}
