"""Our side: the step and the prediction as the program runs them, and their operations counted."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import problem
from benchmarks.problem import Problem
from dasac_jax import interop
from dasac_jax.inference import predictor
from dasac_jax.interop import names
from dasac_jax.method import optim, state, steps
from dasac_jax.models import create_model, dinov2, has_batch_norm
from dasac_jax.models.deeplabv2 import ATROUS_RATES, AtrousHead
from dasac_jax.models.layers import Conv
from dasac_jax.runtime import data_parallel

PROFILED = 3  # runs in a profile
# What the names of precisions mean to JAX: the network's type, and that of float32 products.
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "highest"),
}


def variables(arch: str) -> dict[str, Any]:
    """The network's variables with the problem's weights."""
    entries = names.entries(arch, problem.CLASSES)
    state_dict = {name: problem.weight(name, shape) for name, shape in entries.items()}
    return interop.variables_from_state_dict(arch, state_dict)


def network(arch: str, **options: Any) -> nn.Module:
    """The network as the adaptation trains it."""
    return create_model(arch, frozen_norm=has_batch_norm(arch), **options)


def optimiser(arch: str) -> Any:
    """SGD, or AdamW for transformers, as the recipes have them."""
    if has_batch_norm(arch):
        return optim.create(problem.LEARNING_RATE)
    return optim.create(problem.LEARNING_RATE, kind="adamw", weight_decay=problem.ADAMW_DECAY)


def make(task: Problem) -> Callable[[], dict[str, Any]]:
    """A function that computes once and gives what it computed, still on the device."""
    dtype, precision = PRECISIONS[task.dtype]
    jax.config.update("jax_default_matmul_precision", precision)
    model = network(task.network, dtype=dtype, remat=task.remat)
    if task.task == "predict":
        predict = predictor.create(model, variables(task.network), predictor.Options())
        images = problem.image(task)
        return lambda: {"labels": predict(images)().labels}
    step, batch = adaptation(model, task.network), problem.adapt_batch(task)
    step = partial(step, accumulate=task.accumulate, axis_name=data_parallel.AXIS)
    program = data_parallel.data_parallel(step)
    current = data_parallel.replicate(begin(model, task.network))
    batch = jax.pmap(lambda x: x)(jax.tree.map(lambda x: x[None], batch))
    compiled = False

    def run():
        nonlocal current, compiled
        if not compiled:  # as the training loop does
            data_parallel.compile_ahead(program, current, batch)
            compiled = True
        current, metrics = program(current, batch)
        return {name: metrics[name][0] for name in ("loss_source", "loss_target", "labelled")}

    return run


def begin(model: nn.Module, arch: str) -> state.TrainState:
    """The state before the first step."""
    beginning = variables(arch)
    return state.create(model, optimiser(arch), seed=0, beta=problem.BETA, variables=beginning)


def adaptation(model: nn.Module, arch: str) -> Callable[..., Any]:
    """`steps.adapt_step` with the problem's settings."""
    return partial(
        steps.adapt_step,
        model=model,
        optimiser=optimiser(arch),
        group_size=problem.GROUP_SIZE,
        target_weight=problem.TARGET_WEIGHT,
        threshold_lower=problem.THRESHOLD_LOWER,
        threshold_upper=problem.THRESHOLD_UPPER,
        steps_per_epoch=10**6,
        teacher_every_steps=problem.TEACHER_EVERY,
        teacher_momentum=problem.TEACHER_MOMENTUM,
        prior_momentum=problem.PRIOR_MOMENTUM,
        beta=problem.BETA,
        focal_power=problem.FOCAL_POWER,
    )


def operations(task: Problem) -> dict[str, float]:
    """Floating-point operations of one step or one prediction: by hand, and by XLA's count.

    By hand: 2 · k² · inputs · outputs for each pixel of each convolution, linear layers being some,
    and 4 · tokens² · width for each attention; the gradient takes twice as many again, but the
    first convolution's needs none for its input. All the rest is small beside that.
    """
    forward, first = _products(task)
    if task.task == "predict":
        by_hand = forward
    else:
        by_hand = task.images * (3 * forward - first) + task.groups * problem.GROUP_SIZE * forward
    return {"by_hand": by_hand, "by_xla": _by_xla(task)}


def _products(task: Problem) -> tuple[float, float]:
    """Operations of all convolutions and attentions for one image, and of the first of them."""
    found = []
    linear = (dinov2.Linear, dinov2.Patches, dinov2.Doubled)

    def count(next_call, args, kwargs, context):
        before = len(found)
        out = next_call(*args, **kwargs)
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            layer, pixels = context.module, out.shape[1] * out.shape[2]
            found.append(2 * layer.size**2 * args[0].shape[-1] * out.shape[-1] * pixels)
        elif isinstance(context.module, linear):
            # Each number of the results is a sum over the inputs of its pixel, token or patch.
            patches = isinstance(context.module, dinov2.Patches)
            inputs = args[0].size // out.shape[1] if patches else args[0].shape[-1]
            found.append(2 * inputs * out.size)
        elif isinstance(context.module, AtrousHead) and len(found) == before:
            # All branches as one product, none of which was called.
            found.append(len(ATROUS_RATES) * 2 * 9 * args[0].shape[-1] * out.size)
        elif isinstance(context.module, dinov2.Attention):
            found.append(4 * out.shape[1] * out.size)
        return out

    # Equal blocks are traced once, but each of them computes.
    with nn.intercept_methods(count), jax.disable_jit():
        jax.eval_shape(
            lambda x: create_model(task.network).init(jax.random.key(0), x),
            jnp.zeros((1, task.height, task.width, 3)),
        )
    return float(sum(found)), float(found[0])


def _by_xla(task: Problem) -> float:
    model = network(task.network)
    if task.task == "predict":
        images = jnp.zeros((1, task.height, task.width, 3))
        shapes = jax.eval_shape(lambda: variables(task.network))
        lowered = jax.jit(partial(steps.predict_step, model=model)).lower(shapes, images)
    else:
        shapes = jax.eval_shape(partial(begin, model, task.network))
        lowered = jax.jit(adaptation(model, task.network)).lower(shapes, problem.adapt_batch(task))
    return float(lowered.cost_analysis()["flops"])


def ceilings(task: Problem) -> dict[str, Any]:
    """Operations of a large matrix product, bytes moved by a copy, and functions that do them."""
    dtype = PRECISIONS[task.dtype][0]
    size = 8192 if task.device == "gpu" else 2048
    key = jax.random.key(0)
    a, b = (jax.random.normal(k, (size, size), dtype) for k in jax.random.split(key))
    long = jnp.zeros((2**28 if task.device == "gpu" else 2**25,), jnp.float32)
    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    return {
        "product": (2.0 * size**3, lambda: multiply(a, b).block_until_ready()),
        "copy": (2.0 * long.nbytes, lambda: copy(long).block_until_ready()),
    }


def peak_device_bytes() -> int | None:
    """The most that the device's memory held, where the device tells."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else None


def profile(run: Callable[[], dict[str, Any]], path: str) -> dict[str, Any]:
    """Trace a few runs into `path`, a file *.trace.json.gz; say how many, or what failed.

    Nothing is raised: the measurements before it are worth keeping without a profile.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(PROFILED):
                    values = run()
                settle(values)
            shutil.move(next(Path(folder).rglob("*.trace.json.gz")), path)
    except Exception as error:
        return {"failed": repr(error)}
    return {"trace": path, "runs": PROFILED}


def settle(values: dict[str, Any]) -> dict[str, Any]:
    """Wait for values and give them as Python numbers and arrays."""
    return {name: jax.device_get(value) for name, value in values.items()}
