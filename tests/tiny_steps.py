"""The adaptation's step on the tiny network of device_runs.py, and how states are compared."""

from collections.abc import Callable
from functools import partial
from typing import Any

import device_runs
import jax
import numpy as np

from dasac_jax.method import optim, state, steps
from dasac_jax.method.state import TrainState

BETA = 1e-3
OPTIONS = {"group_size": 4, "target_weight": 2.0, "threshold_lower": 0.1, "steps_per_epoch": 1000}

# What a compiled step can be given without being compiled anew.
VALUES = {
    "target_weight": 2.0,
    "teacher_every_steps": 100,
    "steps_per_epoch": 1000,
    "teacher_momentum": 0.99,
    "focal_power": 3.0,
    "threshold_lower": 0.1,
    "threshold_upper": 0.75,
    "prior_momentum": 0.99,
    "beta": BETA,
}


def begin(kind: str = "sgd") -> TrainState:
    """The state before the first step."""
    optimiser, variables = optim.create(1e-3, kind=kind), device_runs.variables()
    return state.create(device_runs.TinyNetwork(), optimiser, seed=0, variables=variables)


def adapt(model: device_runs.TinyNetwork, kind: str = "sgd", **options: Any) -> Callable:
    """The step of the adaptation, not compiled."""
    optimiser = optim.create(1e-3, kind=kind)
    return partial(steps.adapt_step, model=model, optimiser=optimiser, **OPTIONS | options)


def assert_trees_equal(ours: Any, theirs: Any, rtol: float = 0.0) -> None:
    """All leaves are equal up to rtol."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-8), ours, theirs)


def changed(ours: Any, theirs: Any) -> bool:
    """Whether any number differs."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
