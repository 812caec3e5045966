"""Steps of a network that compiles in seconds, for the tests of the method."""

from collections.abc import Callable
from functools import cache

import device_runs
import jax
import pytest
import tiny_steps


@pytest.fixture(scope="module")
def model() -> device_runs.TinyNetwork:
    """The tiny network as the adaptation has it, with frozen batch norm."""
    return device_runs.TinyNetwork(frozen_norm=True)


@pytest.fixture(scope="module")
def batches() -> list[dict]:
    """Ten batches of the adaptation, two groups of four views each."""
    return device_runs.batches("adapt", tiny_steps.OPTIONS["group_size"])


@pytest.fixture
def run() -> tiny_steps.TrainState:
    """The state that every test starts from."""
    return tiny_steps.begin()


@pytest.fixture(scope="module")
def step(model) -> Callable:
    """step(state, batch, **values): the adaptation's step, compiled once for all values."""
    compiled = jax.jit(lambda run, batch, values: tiny_steps.adapt(model, **values)(run, batch))
    return lambda run, batch, **values: compiled(run, batch, tiny_steps.VALUES | values)


@pytest.fixture(scope="module")
def look(model) -> Callable:
    """look(state, batch, **options) → metrics and class prior; the gradient is left out."""

    @cache
    def compiled(**options):
        def function(run, batch, values):
            run, metrics = tiny_steps.adapt(model, **options, **values)(run, batch)
            return metrics, run.class_prior

        return jax.jit(function)

    def function(run, batch, **options):
        values = {name: options.get(name, value) for name, value in tiny_steps.VALUES.items()}
        fixed = {name: value for name, value in options.items() if name not in values}
        return compiled(**fixed)(run, batch, values)

    return function
