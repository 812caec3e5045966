"""lists.json: which images a run was begun with, so that a data set that changed is noticed.

Epochs, the order of images and importance weights follow from the lists of images. A run that went
on with other lists would be neither the run that was begun nor a new one.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

from dasac_jax import config as recipe
from dasac_jax.checkpoints import store
from dasac_jax.data import sampling, sources
from dasac_jax.errors import UserError
from dasac_jax.files import LISTS_FILE, METRICS_FILE, write_file
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)

FLAG = "--changed_data"
_STAGES = ("baseline", "adapt")


def check(run: Run, *, accept: bool) -> list[str]:
    """What changed since the run was begun, in lines; none where nothing did.

    accept: whether changes are taken knowingly. Raises UserError for changes that are not, and
    where importance weights are of other images and no stage would make them again.
    """
    stored = _read(run)["roles"] if _has_begun(run) else {}
    now = _roles(run)
    changed = {role: entry for role, entry in now.items() if stored.get(role, entry) != entry}
    lines = [_change(run, role, stored[role], now[role]) for role in changed]
    if lines and not accept:
        data = run.config.data
        where = f"the lists in {data.lists}" if data.lists else f"the images below {data.root}"
        raise UserError(
            f"the images of {run.folder} are not those that it was begun with: {'; '.join(lines)}: "
            f"restore {where}, take another --workdir, or go on with these by {FLAG}"
        )
    if "target_train" in changed and _has_stale_weights(run):
        stages = recipe.stages(run.config)
        if "adapt" in stages and "weights" not in stages:
            raise UserError(
                f"{run.weights_file} is of other target images than there are now: add weights to "
                "config.stages, which makes it anew"
            )
    return lines


def write(run: Run, changes: list[str]) -> None:
    """Note the images of the run, and what of them changed; make way for what has to be made anew.

    That is weights.tsv, where its images are others, and the scores, also where there were no
    labelled images to score before. Raises UserError where a file
    cannot be written.
    """
    before = _read(run)
    for line in changes:
        _LOG.warning("going on with other images: %s", line)
    if changes and _has_stale_weights(run):
        kept = run.weights_file.with_suffix(".old.tsv")
        run.weights_file.replace(kept)
        _LOG.warning("%s was of other images: kept as %s", run.weights_file.name, kept)
    roles = _roles(run)
    if changes or (before["roles"] and roles.keys() - set(before["listed"])):
        (run.folder / METRICS_FILE).unlink(missing_ok=True)
    steps = ", ".join(f"{stage} step {step}" for stage, step in _steps(run).items())
    noted = [f"{line}, at {steps or 'the start'}" for line in changes]
    # What a role was stays known while there is no list of it.
    content = {"roles": before["roles"] | roles, "changes": [*before["changes"], *noted]}
    content["listed"] = list(roles)
    if content != before:
        write_file(run.folder / LISTS_FILE, json.dumps(content, indent=1) + "\n")


def changes(run: Run) -> list[str]:
    """What changed in the lists since the run was begun, and at which steps; for its report."""
    return _read(run)["changes"]


def _roles(run: Run) -> dict[str, dict[str, Any]]:
    """How many images each role has, and a checksum of the names of images and labels."""
    roles = ["source_train", "target_train"]
    if run.config.data.selection_images:
        roles.append("selection")
    if sources.has(run.config.data, "val"):
        roles.append("val")
    found = {}
    for role in roles:
        pairs = run.open(role).pairs
        text = "\n".join(f"{image}\t{label or ''}" for image, label in pairs)
        found[role] = {"images": len(pairs), "crc32": f"{zlib.crc32(text.encode()):08x}"}
    return found


def _change(run: Run, role: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if then["images"] == now["images"]:
        return f"{role} has {now['images']} images as before, but others, or in another order"
    line = f"{role} has {now['images']} images, it had {then['images']}"
    if role == "source_train":
        batches = {stage: run.config[stage].source_batch for stage in _STAGES}
        steps = [
            f"{stage} {now['images'] // batch}, before {then['images'] // batch}"
            for stage, batch in batches.items()
        ]
        line += f" (steps in an epoch: {'; '.join(steps)})"
    return line


def _read(run: Run) -> dict[str, Any]:
    """What lists.json holds; nothing where there is no such file, as in earlier versions."""
    path = run.folder / LISTS_FILE
    if not path.exists():
        return {"roles": {}, "changes": [], "listed": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        roles = dict(content["roles"])
        listed = list(content.get("listed", roles))  # earlier versions forgot other roles
        return {"roles": roles, "changes": list(content["changes"]), "listed": listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error!r}; remove it") from error


def _steps(run: Run) -> dict[str, int]:
    """The newest step of every stage that has left one."""
    found = {stage: store.latest_step(run.newest(stage)) for stage in _STAGES}
    return {stage: step for stage, step in found.items() if step is not None}


def _has_begun(run: Run) -> bool:
    return bool(_steps(run)) or (run.folder / METRICS_FILE).exists()


def _has_stale_weights(run: Run) -> bool:
    """Whether there are importance weights, but not of the run's target images."""
    if not run.weights_file.exists():
        return False
    try:
        names = [entry.name for entry in run.classes]
        sampling.load_weights(run.weights_file, run.open("target_train").names, names)
    except UserError:
        return True
    return False
