"""What a stage starts from: the first of these that there is.

1. its own newest checkpoint,
2. the state that the stage before it hands on,
3. the weights that `config.init` names,
4. random weights, for the baseline only: the adaptation raises UserError instead.

With the state come metadata: `first_epoch` (epochs that earlier stages have trained) and
`best_score`. If `config.init` is a converted snapshot of a PyTorch run, the stage that it was taken
in resumes from it.

`fresh` is a function that makes a state at step 0. It is called only where its numbers are needed,
since drawing the weights of a large network takes half a minute to compile.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState
from dasac_jax.models import NEW_LAYERS, matching
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)

Facts = dict[str, Any]
Fresh = Callable[[], TrainState]


def of_baseline(run: Run, fresh: Fresh) -> tuple[TrainState, Facts]:
    """The baseline's state: resumed, or `config.init`'s, or a fresh one.

    Of `config.init` come the weights and running statistics, and where it is the snapshot of a
    PyTorch baseline also momentum, epoch and best score.
    """
    if store.latest_step(run.newest("baseline")) is not None:
        return _resumed(run, "baseline", fresh)
    if _snapshot_of(run.config.init, "baseline"):
        return _continued(run, "baseline", fresh)
    if run.config.init:
        return _given(run.config.init, fresh), {}
    return fresh(), {}


def of_adapt(run: Run, fresh: Fresh) -> tuple[TrainState, Facts]:
    """The adaptation's state: resumed, or the baseline's, or a PyTorch adaptation's.

    The baseline's weights, running statistics, momentum buffers, epochs and best score are kept;
    step, teacher and class prior are reset. Where the folder has no baseline and `config.init` is a
    converted snapshot of a PyTorch adaptation, all of that snapshot's state is resumed.
    """
    if store.latest_step(run.newest("adapt")) is not None:
        return _resumed(run, "adapt", fresh)
    if not _reached(run, "baseline") and _snapshot_of(run.config.init, "adapt"):
        return _continued(run, "adapt", fresh)
    baseline, facts = handed_on(run, fresh, "baseline")
    student = {"params": baseline.params, "batch_stats": baseline.batch_stats}
    state = baseline.replace(
        teacher=jax.tree.map(np.array, student),  # as the first step makes it in any case
        class_prior=np.full_like(baseline.class_prior, run.config.adapt.beta),
        step=np.int32(0),
        seed=np.uint32(run.config.seed),
    )
    return state, {
        "first_epoch": facts.get("epoch", 0),
        "best_score": facts.get("best_score", 0.0),
    }


def handed_on(run: Run, fresh: Fresh, stage: str) -> tuple[TrainState, Facts]:
    """The state that a stage hands on, by `config.select`, and its facts.

    Raises UserError where the stage has left none and no `config.init` stands in for it.
    """
    if run.config.select == "best" and store.latest_step(run.best(stage)) is not None:
        return _restored(run, run.best(stage), fresh)
    if store.latest_step(run.newest(stage)) is not None:
        return _restored(run, run.newest(stage), fresh)
    if run.config.init and stage == "baseline":
        _LOG.info("no %s in %s: taking %s for it", stage, run.folder, run.config.init)
        if _snapshot_of(run.config.init, "baseline"):
            _check_classes(run.config.init, store.facts(run.config.init), fresh)
            return _restored(run, run.config.init, fresh)
        return _given(run.config.init, fresh), {}
    raise UserError(
        f"there is no checkpoint in {run.newest(stage)}: run stage {stage} first "
        f"(--config.stages={stage}), or give --config.init=CHECKPOINT"
    )


def _restored(run, path, fresh):
    """A whole state of the run's network. Raises UserError naming what is another one's."""
    needs = {key: run.network()[key] for key in ("arch", "num_classes")}
    return store.restore(path, jax.eval_shape(fresh), needs=needs)


# Metadata of checkpoints that earlier versions wrote, by today's names.
_RENAMED = {"unseen": "pending", "window": "unlogged_steps"}


def _resumed(run, stage, fresh):
    state, facts = _restored(run, run.newest(stage), fresh)
    facts = {_RENAMED.get(key, key): value for key, value in facts.items()}
    _LOG.info("%s: resuming after step %d", stage, int(state.step))
    return state, facts


def _reached(run: Run, stage: str) -> bool:
    return any(
        store.latest_step(folder) is not None for folder in (run.newest(stage), run.best(stage))
    )


def _snapshot_of(path: str, stage: str) -> bool:
    """Whether a checkpoint is converted from a PyTorch run that stopped within a stage."""
    if not path:
        return False
    facts = store.facts(path)
    return "origin" in facts and "epoch" in facts and facts["stage"] == stage


def _continued(run, stage, fresh):
    """A converted snapshot as a whole, at the first step of its epoch."""
    path, epochs = run.config.init, run.config[stage].epochs
    _check_classes(path, store.facts(path), fresh)
    state, facts = _restored(run, path, fresh)
    if facts["epoch"] >= epochs:
        raise UserError(
            f"config.{stage}.epochs is {epochs}, but {path} has done {facts['epoch']}: "
            f"give more, or leave {stage} out of config.stages"
        )
    step = facts["epoch"] * run.steps_per_epoch(stage)
    _LOG.info("%s: going on from %s after epoch %d (step %d)", stage, path, facts["epoch"], step)
    state = state.replace(step=np.int32(step), seed=np.uint32(run.config.seed))
    return state, {"first_epoch": 0, "best_score": facts["best_score"]}


def _check_classes(path: str, facts: Facts, fresh: Fresh) -> None:
    """Raise UserError where a checkpoint's last layers were trained for other classes than ours."""
    there, here = facts.get("num_classes"), len(jax.eval_shape(fresh).class_prior)
    if there not in (None, here) and not facts.get("drawn"):
        raise UserError(
            f"config.init: checkpoint {path} has {there} classes, this configuration has {here}: "
            "give weights without last layers, such as ImageNet's, or leave config.init empty"
        )


def _given(path: str, fresh: Fresh) -> TrainState:
    """A fresh state with a checkpoint's weights and statistics, which may lack new layers."""
    arrays, facts = store.read(path)
    whose = f" (of {facts['arch']})" if "arch" in facts else ""
    drawn = set(facts.get("drawn", ()))  # by the converter: the run's own seed shall decide
    _check_classes(path, facts, fresh)
    state = fresh()
    own = flatten_dict({"params": state.params, "batch_stats": state.batch_stats}, sep="/")
    stored = {name: arrays.get(name, {}) for name in ("params", "batch_stats")}
    given = {
        key: array
        for key, array in flatten_dict(stored, sep="/").items()
        if key in own and key not in drawn
    }
    needed = {
        key: leaf.shape
        for key, leaf in own.items()
        if key in given or not re.match(NEW_LAYERS, key.partition("/")[2])
    }
    for difference in matching.described(given, needed)[:1]:
        raise UserError(f"config.init: checkpoint {path}{whose} {difference}")
    filled = {key: np.asarray(given.get(key, leaf)) for key, leaf in own.items()}
    return state.replace(**unflatten_dict(filled, sep="/"))
