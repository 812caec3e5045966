"""What a stage starts from: its own newest checkpoint, what was handed on, given weights, scratch.

In this order. What starts a stage is a state and the facts to go on with: `first_epoch` (epochs
that earlier stages have done) and `best_score`.
"""

import logging
import re
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax import checkpoint
from dasac_jax.errors import UserError
from dasac_jax.models import NEW_LAYERS
from dasac_jax.state import TrainState
from dasac_jax.workdir import Run

_LOG = logging.getLogger(__name__)

Facts = dict[str, Any]


def of_baseline(run: Run, fresh: TrainState) -> tuple[TrainState, Facts]:
    """The baseline's state: resumed, or `config.init`'s weights, or `fresh`."""
    if checkpoint.latest_step(run.newest("baseline")) is not None:
        return _resumed(run, "baseline", fresh)
    if run.config.init:
        return _given(run.config.init, fresh), {}
    return fresh, {}


def of_adapt(run: Run, fresh: TrainState) -> tuple[TrainState, Facts]:
    """The adaptation's state: resumed, or the baseline's.

    Of the baseline go on the weights, running statistics, momentum buffers, epochs and best
    score; the step count, the teacher and the class prior start anew.
    """
    if checkpoint.latest_step(run.newest("adapt")) is not None:
        return _resumed(run, "adapt", fresh)
    baseline, facts = handed_on(run, "baseline", fresh)
    state = fresh.replace(
        params=baseline.params,
        batch_stats=baseline.batch_stats,
        opt_state=baseline.opt_state,
    )
    return state, {
        "first_epoch": facts.get("epoch", 0),
        "best_score": facts.get("best_score", 0.0),
    }


def handed_on(run: Run, stage: str, fresh: TrainState) -> tuple[TrainState, Facts]:
    """The state that a stage hands on, by `config.select`, and its facts.

    Raises UserError where the stage has left none and no `config.init` stands in for it.
    """
    if run.config.select == "best" and checkpoint.latest_step(run.best(stage)) is not None:
        return checkpoint.restore(run.best(stage), fresh)
    if checkpoint.latest_step(run.newest(stage)) is not None:
        return checkpoint.restore(run.newest(stage), fresh)
    if run.config.init and stage == "baseline":
        _LOG.info("no %s in %s: taking %s for it", stage, run.folder, run.config.init)
        return _given(run.config.init, fresh), {}
    raise UserError(
        f"there is no checkpoint in {run.newest(stage)}: run stage {stage} first "
        f"(--config.stages={stage}), or give --config.init=CHECKPOINT"
    )


def _resumed(run, stage, fresh):
    state, facts = checkpoint.restore(run.newest(stage), fresh)
    _LOG.info("%s: resuming after step %d", stage, int(state.step))
    return state, facts


def _given(path: str, fresh: TrainState) -> TrainState:
    """`fresh` with the weights and statistics of a checkpoint; new layers may be missing in it."""
    arrays, _ = checkpoint.read(path)
    filled = {}
    for name in ("params", "batch_stats"):
        needed = flatten_dict(getattr(fresh, name), sep="/")
        given = flatten_dict(arrays.get(name, {}), sep="/")
        for key, leaf in needed.items():
            if key not in given and not re.match(NEW_LAYERS, key):
                raise UserError(f"config.init: checkpoint {path} lacks {name}/{key}")
            if key in given and given[key].shape != leaf.shape:
                raise UserError(
                    f"config.init: checkpoint {path} holds {name}/{key} {given[key].shape}, "
                    f"this configuration needs {leaf.shape}"
                )
        kept = {key: np.asarray(given.get(key, leaf)) for key, leaf in needed.items()}
        filled[name] = unflatten_dict(kept, sep="/")
    return fresh.replace(**filled)
