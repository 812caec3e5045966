"""The bounds of the short trainings tell right from wrong: each planted mistake exceeds one.

On the cheapest network. The mistakes are planted here, the code under test has no options for
them; all mistakes of the optimiser share one compiled step, which switches between them.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.method import optim, state, steps
from dasac_jax.method.losses import cross_entropy
from dasac_jax.models import create_model, layers, upsample

ARCH = "deeplabv2_vgg16_bn"
OPTIMISERS = (
    "no mistake",
    "no decay",
    "decay on biases",
    "decay after momentum",
    "Nesterov",
    "frozen batch-norm scales",
    "fc6 among the old layers",
    "the heads' biases as new weights",
)


def mistaken_sgd(mistake, params, grads, buffers, settings):
    """One update of SGD, written out parameter by parameter; (updates, buffers) by path."""
    new = {}
    for path, p in params.items():
        g, buffer = grads[path], buffers[path]
        is_new = path.startswith(("classifier/", "features/42/", "features/44/"))
        is_bias, is_scale = path.endswith("/bias"), path.endswith("/scale")
        rate = settings["lr"] * (10 if is_new else 1) * (2 if is_bias else 1)
        decay = 0 if is_bias else settings["weight_decay"] * p
        if mistake == "no decay":
            decay = 0
        if mistake == "decay on biases":
            decay = settings["weight_decay"] * p
        if mistake == "fc6 among the old layers" and path.startswith("features/42/"):
            rate /= 10
        if mistake == "the heads' biases as new weights" and is_bias and "classifier" in path:
            rate, decay = rate / 2, settings["weight_decay"] * p
        late = mistake == "decay after momentum"
        g = g if late else g + decay
        buffer = settings["momentum"] * buffer + g
        direction = g + settings["momentum"] * buffer if mistake == "Nesterov" else buffer
        direction = direction + decay if late else direction
        if mistake == "frozen batch-norm scales" and is_scale:
            direction = jnp.zeros_like(p)
        new[path] = -rate * direction, buffer
    return {path: pair[0] for path, pair in new.items()}, {
        path: pair[1] for path, pair in new.items()
    }


def switched_sgd(settings):
    """An optimiser whose state holds the number of the mistake that it makes."""

    def init(params):
        return jnp.int32(0), jax.tree.map(jnp.zeros_like, params)

    def update(grads, opt_state, params):
        which, buffers = opt_state
        flat = [flatten_dict(tree, sep="/") for tree in (params, grads, buffers)]
        branches = [partial(mistaken_sgd, name, settings=settings) for name in OPTIMISERS]
        updates, buffers = jax.lax.switch(which, branches, *flat)
        updates, buffers = (unflatten_dict(tree, sep="/") for tree in (updates, buffers))
        return updates, (which, buffers)

    return optax.GradientTransformation(init, update)


class Baseline:
    """The golden baseline run with any step."""

    def __init__(self, runs, recipe, golden):
        self.runs, self.recorded = runs, golden(f"baseline_{ARCH}_base")
        self.settings = json.loads(str(self.recorded["settings"]))
        self.model = create_model(ARCH)
        self.start = runs.variables(ARCH, runs.start(recipe, ARCH))
        self.batches = [
            runs.baseline_batch(recipe, i, self.settings) for i in range(self.settings["steps"])
        ]
        self.switched = switched_sgd(self.settings)
        self.switched_step = self.compiled(steps.baseline_step, self.switched)

    def compiled(self, step, optimiser):
        return jax.jit(partial(step, model=self.model, optimiser=optimiser))

    def begin(self, optimiser):
        return state.create(self.model, optimiser, seed=0, variables=self.start)

    def exceeded(self, step, run):
        """The bounds that a training with `step` from the state `run` does not keep."""
        losses = []
        for batch in self.batches:
            run, metrics = step(run, batch)
            losses.append([metrics["loss_source"], metrics["loss_target"]])
        errors = {"losses": np.abs(np.array(losses) / self.recorded["log"] - 1).max()}
        errors |= self.runs.tensor_errors(
            ARCH, run.student, self.recorded["student"], self.recorded["keys"]
        )
        return self.runs.exceeded(errors, self.runs.BASELINE_BOUNDS)


@pytest.fixture(scope="module")
def baseline(runs, recipe, golden):
    return Baseline(runs, recipe, golden)


@pytest.mark.parametrize("mistake", OPTIMISERS)
def test_of_the_optimiser(mistake, baseline):
    run = baseline.begin(baseline.switched)
    which = jnp.int32(OPTIMISERS.index(mistake))
    run = run.replace(opt_state=(which, run.opt_state[1]))
    exceeded = baseline.exceeded(baseline.switched_step, run)
    assert bool(exceeded) == (mistake != "no mistake"), exceeded


def test_biased_running_variance(baseline, monkeypatch):
    moments = layers.batch_moments

    def without_correction(x, axis_name=None):
        mean, var, _ = moments(x, axis_name)
        return mean, var, jnp.float32(1e30)  # n / (n - 1) = 1

    monkeypatch.setattr(layers, "batch_moments", without_correction)
    optimiser = optim.create(baseline.settings["lr"])
    step = baseline.compiled(steps.baseline_step, optimiser)
    exceeded = set(baseline.exceeded(step, baseline.begin(optimiser)))
    assert {"statistics"} <= exceeded <= {"statistics", "sums"}


def test_target_pass_before_the_source_update(baseline):
    def step(run, batch, *, model, optimiser):
        def loss_of(params, batch_stats, domain):
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                batch[f"{domain}_image"],
                train=True,
                mutable=["batch_stats"],
            )
            labels = batch[f"{domain}_label"]
            logits = upsample(logits, labels.shape[1:])
            return cross_entropy(logits, labels), updated["batch_stats"]

        target, batch_stats = loss_of(run.params, run.batch_stats, "target")
        (source, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(
            run.params, batch_stats, "source"
        )
        updates, opt_state = optimiser.update(grads, run.opt_state, run.params)
        params = optax.apply_updates(run.params, updates)
        run = run.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)
        return run, {"loss_source": source, "loss_target": target}

    optimiser = optim.create(baseline.settings["lr"])
    exceeded = baseline.exceeded(baseline.compiled(step, optimiser), baseline.begin(optimiser))
    assert {"losses", "statistics"} <= set(exceeded)


# A wrong value of the method, the step that shows it, and what it shows in.
METHOD = {
    "no mistake": (None, 2, None),
    "focal_power": (2.0, 0, "losses"),
    "threshold_lower": (0.2, 0, "labelled"),
    "target_weight": (1.0, 1, "losses"),
    "prior_momentum": (0.9, 1, "class prior"),
    "teacher_every_steps": (1, 1, "teacher distance"),
    "teacher_momentum": (0.9, 2, "teacher distance"),
}


class Adaptation:
    """The golden adaptation, with values that can be changed without compiling anew."""

    def __init__(self, runs, recipe, golden):
        self.recorded = golden(f"adapt_{ARCH}_pixel")
        self.settings = settings = json.loads(str(self.recorded["settings"]))
        self.values = {
            "focal_power": 3.0,
            "threshold_lower": settings["RUN_CONF_LOWER"],
            "target_weight": settings["lr_target"],
            "prior_momentum": 0.99,
            "teacher_every_steps": settings["teacher_interval"],
            "teacher_momentum": 0.99,
        }
        self.batches = [runs.adapt_batch(recipe, i, settings) for i in range(settings["steps"])]
        model, optimiser = create_model(ARCH, frozen_norm=True), optim.create(settings["lr"])
        fixed = {"group_size": settings["group_size"], "steps_per_epoch": 1000}

        def step(run, batch, values):
            return steps.adapt_step(run, batch, model=model, optimiser=optimiser, **fixed, **values)

        def look(run, batch, values):
            run, metrics = step(run, batch, values)
            return [metrics[column] for column in runs.ADAPT_LOG], run.class_prior

        self.step = jax.jit(step)
        self.look = jax.jit(look)  # what does not need the update: XLA leaves the gradient out
        self.beginning = runs.start(recipe, ARCH)
        variables = runs.variables(ARCH, self.beginning)
        self.right = [state.create(model, optimiser, seed=0, variables=variables)]
        self.log = []
        for batch in self.batches:
            run, metrics = self.step(self.right[-1], batch, self.values)
            self.right.append(run)
            self.log.append([float(metrics[column]) for column in runs.ADAPT_LOG])


@pytest.fixture(scope="module")
def adaptation(runs, recipe, golden):
    return Adaptation(runs, recipe, golden)


def test_the_whole_adaptation(adaptation, runs):
    priors = [np.asarray(run.class_prior) for run in adaptation.right[1:]]
    recorded = adaptation.recorded
    errors = runs.adapt_errors(np.array(adaptation.log), np.array(priors), recorded)
    errors |= runs.adapt_end_errors(ARCH, adaptation.right[-1], adaptation.beginning, recorded)
    print(errors)
    assert not runs.exceeded(errors, runs.ADAPT_BOUNDS), errors


@pytest.mark.parametrize("name", METHOD)
def test_of_the_method(name, adaptation, runs):
    wrong, step, shows_in = METHOD[name]
    values = adaptation.values | ({} if wrong is None else {name: wrong})
    run = adaptation.right[step]
    if name == "target_weight":  # the only one of them that an earlier step would have shown
        run, _ = adaptation.step(adaptation.right[0], adaptation.batches[0], values)
    log, prior = jax.device_get(adaptation.look(run, adaptation.batches[step], values))
    errors = runs.adapt_errors(np.array([log]), prior[None], adaptation.recorded, first=step)
    exceeded = runs.exceeded(errors, runs.ADAPT_BOUNDS)
    assert exceeded.keys() >= {shows_in} if wrong else not exceeded, errors
