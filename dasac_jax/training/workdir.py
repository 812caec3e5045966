"""A run's folder: its configuration, its data, where things lie in it."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax.checkpoints import steps
from dasac_jax.data import classes, sampling, sources
from dasac_jax.data.demo import render
from dasac_jax.data.labels import Class
from dasac_jax.data.pairs import PairSource
from dasac_jax.data.preparation import train_ids
from dasac_jax.errors import UserError
from dasac_jax.files import (
    BEST,
    CONFIG_FILE,
    DATA,
    LISTS_FILE,
    METRICS_FILE,
    NEWEST,
    WEIGHTS_FILE,
    replacing,
    seed_folders,
)

_LOG = logging.getLogger(__name__)

# Keys that may differ from one start to the next: they change no result. Data may move, lists of
# them too: other images than the run was begun with are found by `lists_record`.
_FREE = {
    "stages",
    "validation_batch",
    "checkpoint_every_steps",
    "checkpoint_every_minutes",
    "max_minutes",
    "max_skipped_steps",
    "log_every_steps",
    "loader_threads",
    "data.root",
    "data.lists",
    "data.tfds",
    "remat",
    "adapt.accumulate",
}


@dataclass(frozen=True)
class Run:
    """A configuration, with data.root resolved, and the folder that it works in.

    unseen_classes: train ids that no label has shown yet, see `label_check`.
    """

    config: ConfigDict
    folder: Path
    unseen_classes: list[int] = field(default_factory=list, compare=False)
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def weights_file(self) -> Path:
        """Predicted pixels per class and target image, by the weights stage."""
        return self.folder / WEIGHTS_FILE

    def newest(self, stage: str) -> Path:
        """Folder of a stage's newest checkpoints."""
        return self.folder / stage / NEWEST

    def best(self, stage: str) -> Path:
        """Folder of a stage's best checkpoint."""
        return self.folder / stage / BEST

    def open(self, role: str) -> PairSource:
        """The images of a role, see `sources.open_source`; they are listed only once."""
        if role not in self._read:
            self._read[role] = sources.open_source(self.config.data, role)
        return self._read[role]

    def importance_weights(self) -> np.ndarray:
        """The weights (N, C) float64 of the target images, from `weights_file`; read only once.

        Raises UserError where the file cannot be read, or is of other images or classes.
        """
        if WEIGHTS_FILE not in self._read:
            names = self.open("target_train").names
            class_names = [entry.name for entry in self.classes]
            found = sampling.load_weights(self.weights_file, names, class_names)
            self._read[WEIGHTS_FILE] = found
        return self._read[WEIGHTS_FILE]

    def steps_per_epoch(self, stage: str) -> int:
        """How many whole batches of a stage the source has.

        Raises UserError where it has none.
        """
        images, batch = len(self.open("source_train")), self.config[stage].source_batch
        if batch > images:
            raise UserError(
                f"config.{stage}.source_batch is {batch}, but there are only "
                f"{images} source images: use a smaller batch"
            )
        return images // batch

    @property
    def classes(self) -> tuple[Class, ...]:
        """The classes that are trained and scored, in the order of their train ids."""
        return classes.of(self.config.data)

    def network(self) -> dict[str, Any]:
        """What a checkpoint says of its network and of what its labels meant, for JSON."""
        data = self.config.data
        names = [entry.name for entry in self.classes]
        return {
            "arch": self.config.arch,
            "dtype": self.config.dtype,
            "num_classes": len(self.classes),
            "class_names": names,
            "palette": [list(entry.color) for entry in self.classes],
            "data": {
                "source": data.source,
                "source_ids": [list(pair) for pair in data.classes.source_ids],
                "target_ids": [list(pair) for pair in data.classes.target_ids],
                "left_out": [names[i] for i in self.config.left_out],
            },
        }


def open_run(config: ConfigDict, folder: Path) -> Run:
    """The run of `config` in `folder`, all that it needs being there; nothing is written yet.

    Raises UserError when the folder belongs to another configuration, and one that names every
    folder or file that the stages need and is missing.
    """
    config = config.copy_and_resolve_references()
    check_same(config, folder)
    if seeds := [x for x, y in seed_folders(folder).items() if (y / CONFIG_FILE).exists()]:
        raise UserError(
            f"--workdir {folder} holds a run of several seeds, {', '.join(map(str, seeds))}: give "
            "--seeds to go on with it, or choose another --workdir"
        )
    run = Run(_with_data_root(config, folder), folder)
    missing = _missing(run)
    if missing:
        raise UserError("missing:\n  " + "\n  ".join(missing))
    return run


def check_same(config: ConfigDict, folder: Path) -> None:
    """Raise UserError where a folder holds a run of another configuration.

    As long as the adaptation has saved nothing, its settings may differ.
    """
    path, flat, free = folder / CONFIG_FILE, _stored_form(config), set(_FREE)
    if not _has_adapted(folder):
        free |= {key for key in flat if key.startswith("adapt.")}
    if not (folder / LISTS_FILE).exists():  # as in earlier versions
        free.remove("data.lists")
    if lines := _differences(path, flat, free):
        raise UserError(
            f"--workdir {folder} belongs to another configuration "
            f"({'; '.join(lines[:5])}{'; …' if len(lines) > 5 else ''}): "
            "choose another --workdir, or give that configuration"
        )


def claim(run: Run, config: ConfigDict) -> None:
    """Write `config` to the run's folder, which is its own from then on.

    Settings of an adaptation that has saved nothing may be others than before: what changed is
    logged. Raises UserError when the folder cannot be written.
    """
    path, flat = run.folder / CONFIG_FILE, _stored_form(config)
    if changed := _differences(path, flat, _FREE):
        _LOG.info("settings that changed: %s", "; ".join(changed))
        (run.folder / METRICS_FILE).unlink(missing_ok=True)  # of an adaptation that is gone
    text = json.dumps(flat, indent=1) + "\n"
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--workdir {run.folder} cannot be written ({error.strerror}): choose another folder"
        ) from error


def _stored_form(config: ConfigDict) -> dict[str, Any]:
    """What JSON keeps of a configuration: tuples become lists."""
    return json.loads(json.dumps(recipe.flatten(config)))


def _with_data_root(config: ConfigDict, folder: Path) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.root = config.data.root or str(folder / DATA)
    return config


def _missing(run: Run) -> list[str]:
    """A line for everything that the stages need and that is not there."""
    config = run.config
    first = recipe.stages(config)[0]
    lines = []
    if "demo" not in config:
        roles = ["source_train", "target_train"]
        if sources.has(config.data, "val"):
            roles.append("val")
        if config.data.selection_images:
            roles.append("selection")
        lines = sources.missing(config.data, roles)
    begun = any(run.newest(stage).is_dir() for stage in ("baseline", "adapt"))
    if config.init and not begun and not Path(config.init).is_dir():
        lines.append(f"{config.init}: the checkpoint to start from, made of {config.init_from}")
    if first != "baseline" and not begun and not config.init:
        lines.append(
            f"{run.newest('baseline')}: the baseline that stage {first} starts from: run stage "
            "baseline first, or give --config.init=CHECKPOINT"
        )
    return lines


def make_demo(run: Run) -> None:
    """Render the demo's domains and prepare their labels, where the recipe brings its own data."""
    if "demo" not in run.config:
        return
    root = Path(run.config.data.root)
    if not (root / "demo.json").exists():
        _LOG.info("rendering the demo's images to %s", root)
    render.render(root, seed=run.config.seed, **run.config.demo)
    train_ids.prepare_gta(root)
    train_ids.prepare_cityscapes(root)


def _shown(flat: dict[str, Any], key: str) -> str:
    """A value in words; an empty text would be invisible."""
    return "empty" if flat.get(key) == "" else str(flat.get(key, "absent"))


def _differences(path: Path, flat: dict[str, Any], free: set[str]) -> list[str]:
    """A line for each key of a run's config.json that has another value now and is not free."""
    if not path.exists():
        return []
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(written, dict):
            raise ValueError("no configuration")
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): choose another --workdir") from error
    # A key that an earlier version did not know had no effect, which is what its default has.
    stored = _stored_form(recipe.base()) | written
    return [
        f"{key}: {_shown(stored, key)} there, {_shown(flat, key)} here"
        for key in sorted(stored.keys() | flat.keys())
        if key not in free and stored.get(key) != flat.get(key)
    ]


def _has_adapted(folder: Path) -> bool:
    """Whether a run has a checkpoint of the adaptation, whole or not."""
    return any(steps.steps((folder / "adapt" / place).absolute()) for place in (NEWEST, BEST))
