"""Short trainings of the three networks against the authors' numbers: baseline and adaptation."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from dasac_jax.method import consistency, optim, state, steps
from dasac_jax.models import create_model

# Those of deeplabv2_vgg16_bn are the ones without a mistake in test_planted_mistakes.py.
BASELINES = ("deeplabv2_resnet101", "fcn_vgg16_bn")
ADAPTATIONS = {
    "deeplabv2_resnet101": ("pixel", "batch"),
    "fcn_vgg16_bn": ("pixel",),
}  # confidence weightings


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


@pytest.mark.parametrize("arch", ADAPTATIONS)
def test_adaptation(arch, runs, recipe, golden, monkeypatch):
    weightings = ADAPTATIONS[arch]
    records = [golden(f"adapt_{arch}_{weighting}") for weighting in weightings]
    each = [json.loads(str(recorded["settings"])) for recorded in records]
    settings = each[0]
    assert all(other | {"weighting": settings["weighting"]} == settings for other in each)
    model, optimiser = create_model(arch, frozen_norm=True), make_optimiser(settings)
    beginning = runs.start(recipe, arch)
    step = adapt_step(model, optimiser, settings, weightings, monkeypatch)
    for number, recorded in enumerate(records):
        run = begin(runs.variables(arch, beginning), model, optimiser)
        weighted = partial(step, np.int32(number))
        assert_like_the_authors(arch, run, weighted, beginning, runs, recipe, recorded)


def adapt_step(model, optimiser, settings, weightings, monkeypatch):
    """step(number, state, batch): number chooses a weighting; one program, a minute to compile."""
    number, pixel_weights = [], consistency.pixel_weights

    def chosen(*values, **rest):
        each = [pixel_weights(*values, **rest | {"confidence_weighting": x}) for x in weightings]
        return jax.lax.select_n(number[0], *each)

    monkeypatch.setattr(consistency, "pixel_weights", chosen)

    def step(which, run, batch):
        number[:] = [which]
        return steps.adapt_step(
            run,
            batch,
            model=model,
            optimiser=optimiser,
            group_size=settings["group_size"],
            target_weight=settings["lr_target"],
            threshold_lower=settings.get("RUN_CONF_LOWER", 0.2),
            steps_per_epoch=1000,
            teacher_every_steps=settings["teacher_interval"],
        )

    return jax.jit(step, donate_argnums=1)


def assert_like_the_authors(arch, run, step, beginning, runs, recipe, recorded):
    settings = json.loads(str(recorded["settings"]))
    log, priors = [], []
    for i in range(settings["steps"]):
        run, metrics = step(run, runs.adapt_batch(recipe, i, settings))
        log.append([float(metrics[name]) for name in runs.ADAPT_LOG])
        priors.append(np.asarray(run.class_prior))

    errors = runs.adapt_errors(np.array(log), np.array(priors), recorded)
    errors |= runs.adapt_end_errors(arch, run, beginning, recorded)
    print(arch, settings["weighting"], errors)
    assert not runs.exceeded(errors, runs.ADAPT_BOUNDS), errors


def make_optimiser(settings):
    return optim.create(
        settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )


def begin(variables, model, optimiser):
    return state.create(model, optimiser, seed=0, variables=variables)
