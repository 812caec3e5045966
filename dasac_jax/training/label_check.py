"""Whether a run's labels hold the classes that its configuration names.

What a configuration gets wrong about label values ends in ignored pixels: without these checks such
a run would train with a loss of zero and score next to nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dasac_jax.data import classes, label_survey, sampling, sources
from dasac_jax.data.label_survey import Meaning
from dasac_jax.errors import UserError
from dasac_jax.runtime import processes
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)


def check(run: Run) -> list[int]:
    """Count label values in a sample of each labelled role's files, and say what they hold.

    Returns the source's classes, by train id, that the sample lacks. Raises UserError as
    `label_survey.check` does.
    """

    def check_roles() -> list[int]:
        absent = {role: _check_role(run, role) for role in _roles(run)}
        return absent["source_train"]

    return processes.from_first(check_roles)


def watched(
    batches: Iterator[dict[str, Any]], run: Run, stage: str, first_step: int, unseen: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The same batches, while the classes `unseen` are looked for in their source labels.

    Once a whole epoch has been read from here on, a class that was in none of the source's labels
    ends the run with a UserError. Only the classes not found yet are looked for, on the host.
    """
    steps_per_epoch = run.steps_per_epoch(stage)
    first_end = (first_step // steps_per_epoch + 1) * steps_per_epoch
    end = first_end if first_step % steps_per_epoch == 0 else first_end + steps_per_epoch
    missing = set(unseen)
    try:
        for step, batch in enumerate(batches, start=first_step):
            if unseen and step < end:
                missing -= {i for i in missing if (batch["source_label"] == i).any()}
            yield batch
            if unseen and step + 1 == end:
                _check_epoch(run, stage, step // steps_per_epoch, missing)
    finally:
        batches.close()


def _roles(run: Run) -> list[str]:
    """The roles with labels that a run reads, the source first."""
    roles = ["source_train"]
    if run.config.data.selection_images:
        roles.append("selection")
    if sources.has(run.config.data, "val"):
        roles.append("val")
    return roles


def _check_role(run: Run, role: str) -> list[int]:
    pairs, data = run.open(role), run.config.data
    meaning = Meaning(
        pairs.id_map,
        tuple(entry.name for entry in run.classes),
        own=data.source == classes.CUSTOM,
        key=f"data.classes.{'source' if role == 'source_train' else 'target'}_ids",
        is_trained_on=role == "source_train",
    )
    found = label_survey.survey(pairs)
    absent = label_survey.check(found, role, meaning, [label for _, label in pairs.pairs if label])
    _LOG.info("%s", label_survey.described(found, role, meaning))
    if label_survey.ignored_share(found.counts, meaning) > label_survey.MOSTLY_IGNORED:
        _LOG.warning("%s: most label pixels are ignored: are these the labels you mean?", role)
    if absent:
        names = ", ".join(meaning.class_names[i] for i in absent)
        _LOG.warning("%s: no pixel of %s in %d label files", role, names, found.files)
    return absent


def _check_epoch(run: Run, stage: str, epoch: int, missing: set[int]) -> None:
    """Raise UserError where one of the classes is in no label of the source.

    missing: those that this process has not met in a whole epoch.
    """
    pairs = run.open("source_train")
    is_met = np.array([i not in missing for i in range(len(run.classes))], np.int64)
    never = np.flatnonzero(processes.total(is_met) == 0).tolist()
    # The images that fill no whole batch at the end of an epoch were not read.
    read = run.steps_per_epoch(stage) * run.config[stage].source_batch
    for index in sampling.source_order(run.config.seed, epoch, len(pairs))[read:] if never else ():
        label = pairs[int(index)]["label"]
        never = [i for i in never if not (label == i).any()]
    if never:
        names = ", ".join(repr(run.classes[i].name) for i in never)
        raise UserError(
            f"source_train: none of the {len(pairs)} labels, as they are read, holds a pixel of "
            f"{names}, so nothing could teach it: name its true value in data.classes.source_ids, "
            "or leave the class out of data.classes.names"
        )
