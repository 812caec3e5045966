"""Short trainings against the authors' numbers: baseline and adaptation, three steps each.

Those of deeplabv2_vgg16_bn, with both confidence weightings, are the ones without a mistake in
test_planted_optimiser_mistakes.py and test_planted_method_mistakes.py. The latter are optimised by
the compiler, as users' are; these are not, since optimising them takes minutes. FCN's are a little:
the update of its 134 million weights takes longer than that.
"""

import json
from functools import partial

import jax
import numpy as np
import pytest

from dasac_jax.method import optim, state, steps
from dasac_jax.models import create_model

NETWORKS = ("deeplabv2_resnet101", "fcn_vgg16_bn")
OPTIONS = {"deeplabv2_resnet101": None, "fcn_vgg16_bn": {"xla_backend_optimization_level": 1}}


@pytest.mark.parametrize("arch", NETWORKS)
def test_baseline(arch, runs, recipe, golden):
    recorded = golden(f"baseline_{arch}_small")
    settings = json.loads(str(recorded["settings"]))
    model, optimiser = create_model(arch), make_optimiser(settings)
    run = begin(runs.variables(arch, runs.start(recipe, arch)), model, optimiser)
    step = partial(steps.baseline_step, model=model, optimiser=optimiser)
    step = jax.jit(step, donate_argnums=0, compiler_options=OPTIONS[arch])

    losses = []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.baseline_batch(recipe, i, settings))
        losses.append([metrics["loss_source"], metrics["loss_target"]])

    errors = {"losses": np.abs(np.array(losses) / recorded["log"] - 1).max()}
    errors |= runs.tensor_errors(arch, run.student, recorded["student"], recorded["keys"])
    print(arch, errors)
    assert not runs.exceeded(errors, runs.BASELINE_BOUNDS), errors


@pytest.mark.parametrize("arch", NETWORKS)
def test_adaptation(arch, runs, recipe, golden):
    recorded = golden(f"adapt_{arch}_small")
    settings = json.loads(str(recorded["settings"]))
    model, optimiser = create_model(arch, frozen_norm=True), make_optimiser(settings)
    beginning = runs.start(recipe, arch)
    run = begin(runs.variables(arch, beginning), model, optimiser)
    step = partial(
        steps.adapt_step,
        model=model,
        optimiser=optimiser,
        group_size=settings["group_size"],
        target_weight=settings["lr_target"],
        threshold_lower=settings["RUN_CONF_LOWER"],
        steps_per_epoch=1000,
        teacher_every_steps=settings["teacher_interval"],
        confidence_weighting=settings["weighting"],
    )
    step = jax.jit(step, donate_argnums=0, compiler_options=OPTIONS[arch])

    log, priors = [], []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.adapt_batch(recipe, i, settings))
        log.append([float(metrics[name]) for name in runs.ADAPT_LOG])
        priors.append(np.asarray(run.class_prior))

    errors = runs.adapt_errors(np.array(log), np.array(priors), recorded)
    errors |= runs.adapt_end_errors(arch, run, beginning, recorded)
    print(arch, errors)
    assert not runs.exceeded(errors, runs.ADAPT_BOUNDS), errors


def make_optimiser(settings):
    return optim.create(
        settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )


def begin(variables, model, optimiser):
    return state.create(model, optimiser, seed=0, variables=variables)
