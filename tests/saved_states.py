"""Small states whose every number is one value, and checkpoints of them."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.checkpoints import store
from dasac_jax.method import optim
from dasac_jax.method.state import TrainState


def state_of(value, step=0):
    """A state whose every number is `value`: a backbone of one layer and a new head."""
    params = {
        "layer1": {"conv": {"kernel": np.full((2, 3), value, np.float32)}},
        "layer5": {"conv": {"kernel": np.full((3, 4), value, np.float32)}},
    }
    batch_stats = {"layer1": {"bn": {"mean": np.full(3, value, np.float32)}}}
    opt_state = optim.create(1e-3).init(params)
    return TrainState(
        params=params,
        batch_stats=batch_stats,
        teacher={"params": params, "batch_stats": batch_stats},
        class_prior=np.full(4, value, np.float32),
        opt_state=jax.tree.map(lambda x: np.full(x.shape, value, np.float32), opt_state),
        step=np.int32(step),
        seed=np.uint32(1),
    )


def save(folder, value, step, state=None, **facts):
    manager = store.open_manager(folder)
    store.save(manager, state or state_of(value, step), metadata=facts)
    store.finish(manager)


def values(tree):
    return {x for leaf in jax.tree.leaves(tree) for x in np.ravel(leaf).tolist()}


def converted(stage, epoch):
    """Facts of a checkpoint that was converted from a PyTorch run."""
    return {"stage": stage, "epoch": epoch, "best_score": 0.6, "origin": {"kind": "any"}}


def fresh(given=None):
    """A state of -1 everywhere but in the student's weights that are given, by path."""
    state = state_of(-1.0)
    student = flatten_dict(state.student, sep="/") | (given or {})
    return state.replace(**unflatten_dict(student, sep="/"))
