"""What a stage starts from: the first of these that there is.

1. its own newest checkpoint,
2. the state that the stage before it hands on,
3. the weights that `config.init` names,
4. random weights, for the baseline only: the adaptation raises UserError instead.

With the state come metadata: `first_epoch` (epochs that earlier stages have trained) and
`best_score`. If `config.init` is a converted snapshot of a PyTorch run, the stage that it was taken
in resumes from it.

`fresh` is a function that makes a state at step 0. It is called only where its numbers are needed,
since drawing the weights of a large network takes half a minute to compile. It takes weights that
are given, {path: array}, and draws the others.
"""

import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from dasac_jax.checkpoints import store
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.files import NEWEST
from dasac_jax.method.state import TrainState
from dasac_jax.models import NEW_LAYERS, matching
from dasac_jax.runtime import processes
from dasac_jax.training import from_config
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)

Facts = dict[str, Any]
Fresh = Callable[..., TrainState]


def shared_state(
    run: Run, stage: str, begin: Callable[[Run, Fresh], tuple[TrainState, Facts]]
) -> tuple[TrainState, Facts]:
    """What `begin` reads on the first of several processes, the same on all: state and metadata."""
    fresh = partial(from_config.create_state, run.config, stage)
    return processes.state_from_first(partial(begin, run, fresh), partial(jax.eval_shape, fresh))


def check_given(run: Run, fresh: Fresh) -> None:
    """Raise UserError where the run is to begin with `config.init`, and that does not fit it.

    So that the work directory is still free for a configuration in which it is mended.
    """
    path = run.config.init
    if not path or _reached(run, "baseline") or _reached(run, "adapt"):
        return
    if store.latest_step(path) is None:
        deeper = [Path(path) / place for place in (f"adapt/{NEWEST}", f"baseline/{NEWEST}", NEWEST)]
        found = [place for place in deeper if store.latest_step(place) is not None]
        advice = f"give {found[0]}" if found else "give a folder of checkpoints"
        raise UserError(f"config.init: no checkpoint in {path}: {advice}")
    if _snapshot_of(path, "baseline") or _snapshot_of(path, "adapt"):
        _check_classes(run, store.facts(path), fresh)
    else:
        _weights_given(run, fresh)


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
        return _given(run, fresh), {}
    return fresh(), {}


def of_adapt(run: Run, fresh: Fresh) -> tuple[TrainState, Facts]:
    """The adaptation's state: resumed, or the baseline's, or a PyTorch adaptation's.

    The baseline's weights, running statistics, momentum buffers, epochs and best score are kept;
    step, teacher and class prior are reset. AdamW begins anew, since its warm-up and decay are
    those of the stage. Where the folder has no baseline and `config.init` is a converted snapshot
    of a PyTorch adaptation, all of that snapshot's state is resumed.
    """
    if store.latest_step(run.newest("adapt")) is not None:
        return _resumed(run, "adapt", fresh)
    if not _reached(run, "baseline") and _snapshot_of(run.config.init, "adapt"):
        return _continued(run, "adapt", fresh)
    baseline, facts = handed_on(run, fresh, "baseline")
    student = {"params": baseline.params, "batch_stats": baseline.batch_stats}
    opt_state = baseline.opt_state
    if run.config.optimiser.kind == "adamw":
        opt_state = jax.tree.map(np.zeros_like, opt_state)
    state = baseline.replace(
        opt_state=opt_state,
        teacher=jax.tree.map(np.array, student),  # as the first step makes it in any case
        class_prior=np.full_like(baseline.class_prior, run.config.adapt.beta),
        step=np.int32(0),
        seed=np.uint32(run.config.seed),
    )
    return state, {
        "first_epoch": facts.get("epoch", 0),
        "best_score": facts.get("best_score", 0.0),
    }


def epochs_before_adapt(run: Run, *, trains_baseline: bool) -> int:
    """How many epochs the adaptation will have behind it; before any stage is run.

    trains_baseline: whether the baseline is among the stages. Unless it is complete, all of its
    epochs count: nobody knows how early the best snapshot will be. Raises UserError where a
    checkpoint cannot be read.
    """
    places = _places(run, "baseline")
    saved = [folder for folder in places if store.latest_step(folder) is not None]
    epochs = run.config.baseline.epochs
    complete = saved and store.facts(saved[-1]).get("epoch", 0) >= epochs
    if trains_baseline and not complete:
        return epochs
    if not saved and _snapshot_of(run.config.init, "baseline"):
        saved = [Path(run.config.init)]
    return store.facts(saved[0]).get("epoch", 0) if saved else 0


def handed_on(run: Run, fresh: Fresh, stage: str) -> tuple[TrainState, Facts]:
    """The state that a stage hands on, by `config.select`, and its facts.

    Raises UserError where the stage has left none and no `config.init` stands in for it.
    """
    folder = store.first_with_steps(_places(run, stage))
    if folder is not None:
        return _restored(run, folder, fresh)
    if run.config.init and stage == "baseline":
        _LOG.info("no %s in %s: taking %s for it", stage, run.folder, run.config.init)
        if _snapshot_of(run.config.init, "baseline"):
            _check_classes(run, store.facts(run.config.init), fresh)
            return _restored(run, run.config.init, fresh)
        return _given(run, fresh), {}
    raise UserError(
        f"there is no checkpoint in {run.newest(stage)}: run stage {stage} first "
        f"(--config.stages={stage}), or give --config.init=CHECKPOINT"
    )


def _restored(run, path, fresh):
    """A whole state of the run's network.

    Raises UserError naming what is another one's, and what is not finite.
    """
    needs = {key: run.network()[key] for key in ("arch", "num_classes", "class_names")}
    state, facts = store.restore(path, jax.eval_shape(fresh), needs=needs)
    matching.check_finite(Path(path), matching.named_leaves(state))
    return state, facts


# Metadata of checkpoints that earlier versions wrote, by today's names.
_RENAMED = {"unseen": "pending", "window": "unlogged_steps"}


def _resumed(run, stage, fresh):
    state, facts = _restored(run, run.newest(stage), fresh)
    facts = {_RENAMED.get(key, key): value for key, value in facts.items()}
    _LOG.info("%s: resuming after step %d", stage, int(state.step))
    return state, facts


def _places(run: Run, stage: str) -> tuple[Path, ...]:
    """Where the state that a stage hands on is looked for, by `config.select`."""
    newest = run.newest(stage)
    return (run.best(stage), newest) if run.config.select == "best" else (newest,)


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
    _check_classes(run, store.facts(path), fresh)
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


def _check_classes(run: Run, facts: Facts, fresh: Fresh) -> None:
    """Raise UserError where `config.init`'s last layers were trained for other classes than ours.

    Classes are compared by name and order where the checkpoint says them; where it does not, they
    have to be as many, and are taken in the order of ours.
    """
    path, names = run.config.init, [entry.name for entry in run.classes]
    if facts.get("drawn") or "num_classes" not in facts:
        return
    there, here = facts["num_classes"], len(jax.eval_shape(fresh).class_prior)
    stored = facts.get("class_names")
    without = "give weights without last layers, such as ImageNet's, or leave config.init empty"
    if there != here:
        raise UserError(
            f"config.init: checkpoint {path} has {there} classes, this configuration has {here}: "
            f"{without}"
        )
    if stored and stored != names:
        advice = without
        if sorted(stored) == sorted(names):
            advice = "give data.classes.names and data.classes.palette in the checkpoint's order"
        raise UserError(
            f"config.init: checkpoint {path} has the classes {', '.join(stored)}, this "
            f"configuration {', '.join(names)}: {advice}"
        )
    if not stored and run.classes != CLASSES:
        _LOG.warning(
            "config.init: checkpoint %s does not name its %d classes: its last layers are taken "
            "for those of %s, in this order", path, there, ", ".join(names),
        )  # fmt: skip


def _given(run: Run, fresh: Fresh) -> TrainState:
    """A fresh state with the weights of `config.init`, which may lack new layers."""
    return fresh(_weights_given(run, fresh))


def _weights_given(run: Run, fresh: Fresh) -> dict[str, np.ndarray]:
    """The network's arrays in `config.init` by their paths. Raises UserError where they differ."""
    path = run.config.init
    arrays, facts = store.read(path)
    whose = f" (of {facts['arch']})" if "arch" in facts else ""
    drawn = set(facts.get("drawn", ()))  # by the converter: the run's own seed shall decide
    _check_classes(run, facts, fresh)
    own = flatten_dict(jax.eval_shape(fresh).student, sep="/")
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
    matching.check_finite(Path(path), given)
    return given
