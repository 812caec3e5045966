"""The bounds of the short adaptations tell right from wrong: each planted mistake exceeds one.

On the cheapest network. Wrong values are arguments of the one compiled step.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import consistency, optim, state, steps
from dasac_jax.models import create_model

ARCH = "deeplabv2_vgg16_bn"

# A wrong value of the method, the step that shows it, and what it shows in.
METHOD = {
    "batch_weighting": (True, 0, "losses"),
    "focal_power": (2.0, 0, "losses"),
    "threshold_lower": (0.2, 0, "labelled"),
    "target_weight": (1.0, 1, "losses"),
    "prior_momentum": (0.9, 1, "class prior"),
    "teacher_every_steps": (1, 1, "teacher distance"),
    "teacher_momentum": (0.9, 2, "teacher distance"),
}


class Adaptation:
    """The authors' short adaptation, with values that can be changed without compiling anew."""

    def __init__(self, runs, recipe, golden):
        self.runs, self.recipe, self.golden = runs, recipe, golden
        self.settings = settings = json.loads(str(golden(f"adapt_{ARCH}_small")["settings"]))
        self.values = {
            "batch_weighting": False,
            "focal_power": 3.0,
            "threshold_lower": settings["RUN_CONF_LOWER"],
            "target_weight": settings["lr_target"],
            "prior_momentum": 0.99,
            "teacher_every_steps": settings["teacher_interval"],
            "teacher_momentum": 0.99,
        }
        model, optimiser = create_model(ARCH, frozen_norm=True), optim.create(settings["lr"])
        fixed = {"group_size": settings["group_size"], "steps_per_epoch": 1000}
        weights = consistency.pixel_weights

        def step(run, batch, values):
            settings = {key: value for key, value in values.items() if key != "batch_weighting"}

            def either(*arguments, **rest):
                pixel, whole = (
                    weights(*arguments, **rest | {"confidence_weighting": kind})
                    for kind in ("pixel", "batch")
                )
                return jnp.where(values["batch_weighting"], whole, pixel)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(consistency, "pixel_weights", either)
                return steps.adapt_step(
                    run, batch, model=model, optimiser=optimiser, **fixed, **settings
                )

        self.step = runs.optimised(step)
        self.beginning = runs.start(recipe, ARCH)
        variables = runs.variables(ARCH, self.beginning)
        self.begin = state.create(model, optimiser, seed=0, variables=variables)

    def train(self, name):
        """The states, one more than steps, and the log of the adaptation recorded as `name`."""
        settings = json.loads(str(self.golden(name)["settings"]))
        values = self.values | {"batch_weighting": settings["weighting"] == "batch"}
        states, log = [self.begin], []
        for i in range(settings["steps"]):
            batch = self.runs.adapt_batch(self.recipe, i, settings)
            run, metrics = self.step(states[-1], batch, values)
            states.append(run)
            log.append([float(metrics[column]) for column in self.runs.ADAPT_LOG])
        return states, np.array(log)


@pytest.fixture(scope="module")
def adaptation(runs, recipe, golden):
    return Adaptation(runs, recipe, golden)


@pytest.fixture(scope="module")
def right(adaptation):
    """States and log of the adaptation without a mistake."""
    return adaptation.train(f"adapt_{ARCH}_small")


@pytest.mark.parametrize("name", ["small", "smallbatch"])
def test_the_whole_adaptation(name, adaptation, right, runs, golden):
    name = f"adapt_{ARCH}_{name}"
    recorded = golden(name)
    states, log = right if name.endswith("small") else adaptation.train(name)
    priors = np.array([run.class_prior for run in states[1:]])
    errors = runs.adapt_errors(log, priors, recorded)
    errors |= runs.adapt_end_errors(ARCH, states[-1], adaptation.beginning, recorded)
    print(name, errors)
    assert not runs.exceeded(errors, runs.ADAPT_BOUNDS), errors


@pytest.mark.parametrize("name", METHOD)
def test_of_the_method(name, adaptation, right, runs, recipe, golden):
    wrong, step, shows_in = METHOD[name]
    values = adaptation.values | {name: wrong}
    batches = [runs.adapt_batch(recipe, i, adaptation.settings) for i in range(step + 1)]
    run = right[0][step]
    if name == "target_weight":  # the only one of them that an earlier step would have shown
        run, _ = adaptation.step(right[0][0], batches[0], values)
    run, metrics = adaptation.step(run, batches[step], values)
    log = np.array([[metrics[column] for column in runs.ADAPT_LOG]])
    recorded = golden(f"adapt_{ARCH}_small")
    prior = np.asarray(jax.device_get(run.class_prior))
    errors = runs.adapt_errors(log, prior[None], recorded, first=step)
    exceeded = runs.exceeded(errors, runs.ADAPT_BOUNDS)
    assert exceeded.keys() >= {shows_in}, errors
