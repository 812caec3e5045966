"""Short trainings of the three networks against the authors' numbers: baseline and adaptation."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from dasac_jax import optim, state, steps
from dasac_jax.models import create_model

BASELINES = ("deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn")
ADAPTATIONS = (
    ("deeplabv2_resnet101", "pixel"),
    ("deeplabv2_resnet101", "batch"),
    ("deeplabv2_vgg16_bn", "pixel"),
    ("fcn_vgg16_bn", "pixel"),
)


@pytest.mark.parametrize("arch", BASELINES)
def test_baseline(arch, runs, recipe, golden):
    recorded = golden(f"baseline_{arch}_base")
    settings = json.loads(str(recorded["settings"]))
    model, optimiser = create_model(arch), make_optimiser(settings)
    run = begin(runs.variables(arch, runs.start(recipe, arch)), model, optimiser)
    step = jax.jit(partial(steps.baseline_step, model=model, optimiser=optimiser), donate_argnums=0)

    losses = []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.baseline_batch(recipe, i, settings))
        losses.append([metrics["loss_source"], metrics["loss_target"]])

    errors = {"losses": np.abs(np.array(losses) / recorded["log"] - 1).max()}
    errors |= runs.tensor_errors(arch, run.student, recorded["student"], recorded["keys"])
    print(arch, errors)
    assert not runs.exceeded(errors, runs.BASELINE_BOUNDS), errors


@pytest.mark.parametrize(("arch", "weighting"), ADAPTATIONS)
def test_adaptation(arch, weighting, runs, recipe, golden):
    recorded = golden(f"adapt_{arch}_{weighting}")
    settings = json.loads(str(recorded["settings"]))
    model, optimiser = create_model(arch, frozen_norm=True), make_optimiser(settings)
    beginning = runs.start(recipe, arch)
    run = begin(runs.variables(arch, beginning), model, optimiser)
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
    keys, change = recorded["keys"], partial(runs.change_error, arch, begin=beginning)
    for name, ours in (("student", run.student), ("teacher", run.teacher)):
        norms = runs.tensor_errors(arch, ours, recorded[name], keys)
        errors[name] = max(norms[kind] for kind in ("weights", "biases", "statistics"))
    errors["change"] = change(ours=run.student, recorded=recorded["student"], keys=keys)
    print(arch, weighting, errors)
    assert not runs.exceeded(errors, runs.ADAPT_BOUNDS), errors


def make_optimiser(settings):
    return optim.create(
        settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )


def begin(variables, model, optimiser):
    return state.create(model, optimiser, seed=0, variables=variables)
