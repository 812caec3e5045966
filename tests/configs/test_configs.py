"""Every recipe's networks, whole but abstract, and every key of a configuration."""

import inspect
import runpy
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dasac_jax import config as recipe
from dasac_jax import models
from dasac_jax.data.demo import render
from dasac_jax.method import optim
from dasac_jax.runtime import data_parallel
from dasac_jax.training import from_config

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "configs").glob("*.py"))


def load(path):
    return runpy.run_path(str(path))["get_config"]()


STATES = {}  # by network, classes and optimiser, which several recipes share: tracing takes seconds


def abstract_state(config):
    """A recipe's state without numbers."""
    model, options = from_config.create_model(config), config.optimiser.items()
    key = config.arch, model.num_classes, tuple(sorted(options))
    if key not in STATES:
        STATES[key] = jax.eval_shape(lambda: from_config.create_state(config, "baseline"))
    return STATES[key]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_networks_fit_their_crops(path):
    config = load(path)
    model, student = from_config.create_model(config), abstract_state(config).student
    num_classes = {"custom": 3, "camvid": 11}.get(path.stem.split("_")[0], 19)
    stride = 8 if models.has_batch_norm(config.arch) else 14 / 4 / 1.1
    for stage in ("baseline", "adapt"):
        batch, size = config[stage].source_batch, tuple(config[stage].crop)
        images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
        logits = jax.eval_shape(model.apply, student, images)
        assert (logits.shape[0], logits.shape[3]) == (batch, num_classes)
        assert logits.dtype == jnp.float32
        assert all(abs(n - m / stride) <= 4 for n, m in zip(logits.shape[1:3], size, strict=True))
        full = jax.eval_shape(partial(models.logits_at, model, size=size), logits)
        assert full.shape == (batch, *size, num_classes)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_optimisers_fit_their_networks(path):
    config = load(path)
    state = abstract_state(config)
    if models.has_batch_norm(config.arch):
        groups = Counter(jax.tree.leaves(optim.groups(state.params)))
        assert set(groups) == set(optim.GROUPS)
    for stage in ("baseline", "adapt"):
        optimiser = optim.create(config[stage].learning_rate, **config.optimiser)
        updates, opt_state = jax.eval_shape(
            optimiser.update, state.params, state.opt_state, state.params
        )
        assert jax.tree.map(lambda x: x.shape, updates) == jax.tree.map(
            lambda x: x.shape, state.params
        )
        assert jax.tree.structure(opt_state) == jax.tree.structure(state.opt_state)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_batches_fit_one_device_and_several(path):
    config = load(path)
    for devices in (1, 2):
        baseline, adapt = config.baseline, config.adapt
        counts = {"devices": devices, "local_devices": devices}
        data_parallel.layout("baseline", baseline.source_batch, baseline.target_batch, **counts)
        data_parallel.layout("adapt", adapt.source_batch, adapt.groups, adapt.group_size, **counts)


def test_every_key_is_read_by_a_run(unlabelled):
    keys = set(recipe.flatten(recipe.base()))
    sections = {key.rsplit(".", depth)[0] for key in keys for depth in (1, 2)}
    assert unlabelled.keys <= keys | sections | {"demo"}
    # One is told where the weights are missing that it tells about, one goes with own classes.
    assert keys - unlabelled.keys == {"init_from", "data.classes.palette"}


def test_every_key_of_the_demo_is_an_argument_of_its_rendering():
    assert set(recipe.demo_data()) <= set(inspect.signature(render.render).parameters)
