"""The labelled images that checkpoints are scored on, and what their label values mean.

Checkpoints say themselves what the labels of their data mean, so that a copy outside of its run is
scored as the original is. Those of earlier versions do not: then the run's configuration says it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax.data import classes, label_survey, sources
from dasac_jax.data.labels import CLASS_NAMES
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
from dasac_jax.files import CONFIG_FILE, DATA

_LOG = logging.getLogger(__name__)


def open_pairs(
    checkpoint: Path,
    *,
    root: Path | None,
    split: str,
    list_file: Path | None,
    facts: Mapping[str, Any] | None = None,
) -> PairSource:
    """The labelled images to score a checkpoint on, none of them decoded yet.

    They are those of a list file (`image label` in each line, relative to the data root), or a
    split of a prepared root (a role of `sources.open_source`). root: by default the data of the
    run that the checkpoint lies in, and "data" where it lies in none. facts: the checkpoint's
    metadata. The images may differ in size, see `scores.by_size`. Raises UserError for bad lists,
    lines without a label, and missing folders and files.
    """
    data = _data_config(checkpoint, root, facts or {})
    pairs = sources.open_source(data, split, list_file)
    if not pairs.pairs and split == "source_val" and not list_file:
        raise UserError(
            "source_val has no image: the run holds none of the source back for it "
            "(data.source_held_out is 0); score another --split, or give --list"
        )
    return pairs


def check_labels(pairs: PairSource, class_names: Sequence[str], split: str) -> None:
    """Raise UserError, with the values found, where a sample of the labels cannot be scored.

    class_names: those that the labels' train ids stand for. See `label_survey.check`.
    """
    names = tuple(class_names)
    key = "source_ids" if split.startswith("source") else "target_ids"
    own = bool(pairs.id_map) or names != CLASS_NAMES
    meaning = label_survey.Meaning(pairs.id_map, names, own=own, key=f"data.classes.{key}")
    found = label_survey.survey(pairs)
    absent = label_survey.check(
        found, pairs.name, meaning, [label for _, label in pairs.pairs if label]
    )
    _LOG.info("%s", label_survey.described(found, pairs.name, meaning))
    if absent:
        missing = ", ".join(names[i] for i in absent)
        _LOG.warning("%s: no pixel of %s in %d label files", pairs.name, missing, found.files)


def left_out(checkpoint: Path, facts: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """The train ids that a checkpoint's run leaves out of its mean; none where nothing says so."""
    stored = (facts or {}).get("data", {}).get("left_out")
    if stored is None:
        return tuple(_run_config(checkpoint).get("left_out", ()))
    return tuple(facts["class_names"].index(name) for name in stored)


def _run_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration of the run that a checkpoint lies in; empty where it lies in none."""
    # The checkpoint may be RUN, RUN/stage, RUN/stage/best or RUN/stage/best/step.
    for folder in [checkpoint, *checkpoint.absolute().parents][:4]:
        path = folder / CONFIG_FILE
        if path.is_file():
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
                return {**config, "data.root": config["data.root"] or str(folder / DATA)}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} cannot be read: {error}") from error
    return {}


def _data_config(checkpoint: Path, root: Path | None, facts: Mapping[str, Any]) -> ConfigDict:
    """The `data` section to read a checkpoint's data with.

    It is that of the run which the checkpoint lies in, else the base recipe's. What the checkpoint
    itself says of its labels comes first, as it may be a copy from elsewhere.
    """
    config = recipe.base()
    run = _run_config(checkpoint)
    stored = {key: value for key, value in run.items() if key.startswith("data.")}
    names = tuple(facts.get("class_names", ()))
    if "data" in facts:
        own = facts["data"]["source"] == classes.CUSTOM
        stored |= {
            "data.source": facts["data"]["source"],
            **{f"data.classes.{key}": facts["data"][key] for key in ("source_ids", "target_ids")},
            "data.classes.names": names if own else (),
            "data.classes.palette": facts["palette"] if own else (),
        }
    elif names and names != (tuple(run.get("data.classes.names", ())) or CLASS_NAMES):
        stored = {key: x for key, x in stored.items() if not key.startswith("data.classes.")}
        _LOG.warning(
            "checkpoint %s does not say what label values mean, nor does a run that it lies in: "
            "they are taken for train ids, 0 for %s",
            checkpoint, names[0],
        )  # fmt: skip
    with config.ignore_type():  # JSON has lists for tuples
        config.update_from_flattened_dict(stored)
    if root is not None:
        config.data.root = str(root)
    return config.data
