"""The short trainings with bfloat16 compute: losses within 3e-2 of float32, state in float32.

What is compared: every loss of every step (source, target, and the supervised target loss that
is only logged), relative to the numbers that the authors' code recorded in float32, from which
this package's float32 differs by 5e-6 at most; also the class prior (relative L2) and the share of
labelled pixels (absolute).
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import optim, state, steps
from dasac_jax.models import create_model

BOUND = 3e-2


def begin(runs, recipe, arch, settings, model):
    optimiser = optim.create(
        settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )
    variables = runs.variables(arch, runs.start(recipe, arch))
    return optimiser, state.create(model, optimiser, seed=0, variables=variables)


def assert_float32(run, metrics):
    tensors = run.student, run.teacher, run.class_prior, run.opt_state, metrics
    assert {leaf.dtype for leaf in jax.tree.leaves(tensors)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("arch", ["deeplabv2_vgg16_bn"])
def test_baseline(arch, runs, recipe, golden):
    recorded = golden(f"baseline_{arch}_small")
    settings = json.loads(str(recorded["settings"]))
    model = create_model(arch, dtype=jnp.bfloat16)
    optimiser, run = begin(runs, recipe, arch, settings, model)
    step = partial(steps.baseline_step, model=model, optimiser=optimiser)
    step = jax.jit(step, donate_argnums=0)
    losses = []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.baseline_batch(recipe, i, settings))
        losses.append([metrics["loss_source"], metrics["loss_target"]])
    apart = np.abs(np.array(losses) / recorded["log"] - 1)
    print(apart)
    assert 1e-6 < apart.max() < BOUND  # nearer, and nothing was computed in bfloat16
    assert_float32(run, metrics)


@pytest.mark.parametrize(("arch", "weighting"), [("deeplabv2_vgg16_bn", "pixel")])
def test_adaptation(arch, weighting, runs, recipe, golden):
    recorded = golden(f"adapt_{arch}_small")
    settings = json.loads(str(recorded["settings"]))
    model = create_model(arch, dtype=jnp.bfloat16, frozen_norm=True)
    optimiser, run = begin(runs, recipe, arch, settings, model)
    step = jax.jit(
        partial(
            steps.adapt_step,
            model=model,
            optimiser=optimiser,
            group_size=settings["group_size"],
            target_weight=settings["lr_target"],
            threshold_lower=settings.get("RUN_CONF_LOWER", 0.2),
            steps_per_epoch=1000,
            teacher_every_steps=settings["teacher_interval"],
            confidence_weighting=weighting,
        ),
        donate_argnums=0,
    )
    log, priors = [], []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.adapt_batch(recipe, i, settings))
        log.append([float(metrics[name]) for name in runs.ADAPT_LOG])
        priors.append(np.asarray(run.class_prior))
    errors = runs.adapt_errors(np.array(log), np.array(priors), recorded)
    print(errors)
    del errors["teacher distance"]
    assert errors["losses"] > 1e-5
    assert max(errors.values()) < BOUND, errors
    assert_float32(run, metrics)
