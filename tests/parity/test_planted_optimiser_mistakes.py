"""The bounds of the short baselines tell right from wrong: each planted mistake exceeds one.

The training is run once, on the cheapest network, and its gradients are kept. A mistake of the
optimiser is made by updating with the same gradients; one of the batch statistics by passing the
same images through the same weights. The code under test has no options for mistakes.
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


@partial(jax.jit, static_argnums=0)
def mistaken_sgd(mistake, rate, params, grads, buffers):
    """One update of SGD, written out parameter by parameter; (params, buffers) by path."""
    decay_rate, momentum = 5e-4, 0.9
    new = {}
    for path, p in params.items():
        g, buffer = grads[path], buffers[path]
        is_new = path.startswith(("classifier/", "features/42/", "features/44/"))
        is_bias, is_scale = path.endswith("/bias"), path.endswith("/scale")
        step = rate * (10 if is_new else 1) * (2 if is_bias else 1)
        decay = 0 if is_bias else decay_rate * p
        if mistake == "no decay":
            decay = 0
        if mistake == "decay on biases":
            decay = decay_rate * p
        if mistake == "fc6 among the old layers" and path.startswith("features/42/"):
            step /= 10
        if mistake == "the heads' biases as new weights" and is_bias and "classifier" in path:
            step, decay = step / 2, decay_rate * p
        late = mistake == "decay after momentum"
        g = g if late else g + decay
        buffer = momentum * buffer + g
        direction = g + momentum * buffer if mistake == "Nesterov" else buffer
        direction = direction + decay if late else direction
        if mistake == "frozen batch-norm scales" and is_scale:
            direction = jnp.zeros_like(p)
        new[path] = p - step * direction, buffer
    return tuple({path: pair[i] for path, pair in new.items()} for i in range(2))


def keeping_gradients(optimiser):
    """The same optimiser; its state is (its own state, the gradients of the last step)."""

    def init(params):
        return optimiser.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(grads, opt_state, params):
        updates, inner = optimiser.update(grads, opt_state[0], params)
        return updates, (inner, grads)

    return optax.GradientTransformation(init, update)


class Baseline:
    """The authors' short baseline, run once: its states, gradients and losses of every step."""

    def __init__(self, runs, recipe, golden):
        self.runs, self.recorded = runs, golden(f"baseline_{ARCH}_small")
        self.settings = json.loads(str(self.recorded["settings"]))
        self.model = create_model(ARCH)
        optimiser = keeping_gradients(
            optim.create(
                self.settings["lr"],
                momentum=self.settings["momentum"],
                weight_decay=self.settings["weight_decay"],
            )
        )
        start = runs.variables(ARCH, runs.start(recipe, ARCH))
        self.states = [state.create(self.model, optimiser, seed=0, variables=start)]
        self.batches = [
            runs.baseline_batch(recipe, i, self.settings) for i in range(self.settings["steps"])
        ]
        step = partial(steps.baseline_step, model=self.model, optimiser=optimiser)
        step, self.losses = jax.jit(step), []
        for batch in self.batches:
            run, metrics = step(self.states[-1], batch)
            self.states.append(run)
            self.losses.append([metrics["loss_source"], metrics["loss_target"]])

    def exceeded(self, losses, student):
        """The bounds that these losses and this last state do not keep."""
        errors = {"losses": np.abs(np.array(losses) / self.recorded["log"] - 1).max()}
        recorded = self.recorded["student"], self.recorded["keys"]
        errors |= self.runs.tensor_errors(ARCH, student, *recorded)
        print(errors)
        return set(self.runs.exceeded(errors, self.runs.BASELINE_BOUNDS))


@pytest.fixture(scope="module")
def baseline(runs, recipe, golden):
    return Baseline(runs, recipe, golden)


def test_the_whole_baseline(baseline):
    assert not baseline.exceeded(baseline.losses, baseline.states[-1].student)


@pytest.mark.parametrize("mistake", OPTIMISERS)
def test_of_the_optimiser(mistake, baseline):
    params = flatten_dict(baseline.states[0].params, sep="/")
    buffers = jax.tree.map(jnp.zeros_like, params)
    for run in baseline.states[1:]:
        grads = flatten_dict(run.opt_state[1], sep="/")
        rate = baseline.settings["lr"]
        params, buffers = mistaken_sgd(mistake, rate, params, grads, buffers)
    student = baseline.states[-1].student | {"params": unflatten_dict(params, sep="/")}
    exceeded = baseline.exceeded(baseline.losses, student)
    assert bool(exceeded) == (mistake != "no mistake")


@pytest.fixture(scope="module")
def forward(baseline):
    """forward(params, batch_stats, images, labels, biased) → loss, new batch_stats.

    biased: whether the running variance is taken without Bessel's correction n / (n − 1).
    """
    moments = layers.batch_moments

    def pass_through(params, batch_stats, images, labels, biased):
        def chosen(x, axis_name=None):
            mean, var, count = moments(x, axis_name)
            return mean, var, jnp.where(biased, 1e30, count)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layers, "batch_moments", chosen)
            logits, updated = baseline.model.apply(
                {"params": params, "batch_stats": batch_stats},
                images, train=True, mutable=["batch_stats"],
            )  # fmt: skip
        return cross_entropy(upsample(logits, labels.shape[1:]), labels), updated["batch_stats"]

    return jax.jit(pass_through)


def passes(baseline, forward, *, biased=False, target_first=False):
    """Losses and last student of the recorded weights' passes over the recorded images."""
    batch_stats, losses = baseline.states[0].batch_stats, []
    before_and_after = zip(baseline.states, baseline.states[1:], strict=False)
    for (before, after), batch in zip(before_and_after, baseline.batches, strict=True):
        order = {"source": before.params, "target": after.params}
        if target_first:
            order = {"target": before.params, "source": before.params}
        loss = {}
        for domain, params in order.items():
            data = batch[f"{domain}_image"], batch[f"{domain}_label"]
            loss[domain], batch_stats = forward(params, batch_stats, *data, biased)
        losses.append([loss["source"], loss["target"]])
    return losses, baseline.states[-1].student | {"batch_stats": batch_stats}


def test_passes_without_a_mistake(baseline, forward):
    assert not baseline.exceeded(*passes(baseline, forward))


def test_biased_running_variance(baseline, forward):
    exceeded = baseline.exceeded(*passes(baseline, forward, biased=True))
    assert {"statistics"} <= exceeded <= {"statistics", "sums"}


def test_target_pass_before_the_source_update(baseline, forward):
    exceeded = baseline.exceeded(*passes(baseline, forward, target_first=True))
    assert {"losses", "statistics"} <= exceeded
