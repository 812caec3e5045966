"""The validation that a stage's training stops for at intervals: a score and pictures.

They are of the selection split, labelled images of the target that training never sees.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.method.state import TrainState
from dasac_jax.reporting import validation_pictures
from dasac_jax.runtime import data_parallel
from dasac_jax.training.workdir import Run

PICTURED = 3
_DRAWS = 2  # folded into the seed of the validation's views; training folds in 0 and 1


@dataclass(frozen=True)
class Validation:
    """What a validation finds.

    miou: in 0..1. pictures: (H, W, 3) uint8 by name. values: what else to record, numbers or
    arrays (C,), by name.
    """

    miou: float
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


Validate = Callable[[TrainState], Validation]
"""A validation of a state that lies on the devices of all processes."""


def of_baseline(run: Run, model: nn.Module) -> Validate:
    """mIoU and pictures of centre crops."""
    score = scoring.scorer(model, mode=scoring.CENTRE, size=tuple(run.config.baseline.crop))
    pairs, predict = run.open("selection"), validation_pictures.predictor(model)

    def validate(state: TrainState) -> Validation:
        miou, kept = _score(run, score, state, pairs)
        if jax.process_index() != 0:
            return Validation(miou)
        student = data_parallel.on_first_device(state.student)
        shown = validation_pictures.student(predict, student, kept, PICTURED, run.classes)
        return Validation(miou, {"selection": shown})

    return validate


def of_adapt(
    run: Run, model: nn.Module, make_views: Callable[..., dict[str, jax.Array]]
) -> Validate:
    """mIoU and pictures of images resized to the crop, and what the teacher makes of them.

    make_views: `image.views.target_views` with its settings bound.
    """
    score = scoring.scorer(model, mode=scoring.RESIZE, size=tuple(run.config.adapt.crop))
    pairs, predict = run.open("selection"), validation_pictures.predictor(model)
    inspect = _inspector(run, predict, make_views)
    key = jax.random.fold_in(jax.random.key(run.config.seed), _DRAWS)

    def validate(state: TrainState) -> Validation:
        miou, kept = _score(run, score, state, pairs)
        if jax.process_index() != 0:
            return Validation(miou)
        state = data_parallel.on_first_device(state)
        teacher, prior = state.teacher, state.class_prior
        inspected = [
            inspect(jax.random.fold_in(key, item), pairs[item]["image"], teacher, prior)
            for item in range(len(kept))
        ]
        group_size = run.config.adapt.group_size
        shown = {
            "selection": validation_pictures.student(
                predict, state.student, kept, group_size, run.classes
            ),
            "views": validation_pictures.teacher_views(inspected[0], run.classes),
        }
        thresholds = validation_pictures.mean_thresholds(inspected)
        return Validation(miou, shown, {"thresholds": thresholds})

    return validate


def _inspector(run, predict, make_views) -> Callable[..., dict[str, np.ndarray]]:
    adapt = run.config.adapt
    return validation_pictures.inspector(
        predict,
        make_views,
        group_size=adapt.group_size,
        pool=adapt.pool,
        beta=adapt.beta,
        upper=adapt.threshold_upper,
        lower=adapt.threshold_lower,
        discount=adapt.discount,
    )


def _score(run, score, state, pairs) -> tuple[float, list[Any]]:
    counts, kept = scoring.confusion(
        score, state.student, pairs, batch=run.config.validation_batch, keep=PICTURED
    )
    found = summarise(counts, run.config.left_out)
    if np.isnan(found["miou"]):
        raise UserError(
            "selection: no scored pixel stands for a class, so no snapshot can be selected: mend "
            "the labels, or set config.data.selection_images to 0 and config.select to last"
        )
    return found["miou"], kept
