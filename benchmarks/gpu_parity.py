"""A forward pass and two adaptation steps as numbers, so that those of two devices can be compared.

python -m benchmarks.gpu_parity LAYERS PROBLEM-AS-JSON OUTPUT.npz

LAYERS is the kind of device, cpu or gpu, whose ways to compute are taken; JAX_PLATFORMS names the
device that computes.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.problem import Problem

STEPS = 2
# What rounding may cause: the bounds of docs/parity.md, where it has the same quantities. Products
# in TF32 instead of float32 would change logits by some 1e-3.
BOUNDS = {
    "logits": 1e-4,
    "loss_source": 5e-5,
    "loss_target": 5e-5,
    "class_prior": 1e-5,
    "labelled": 1e-4,
    "update": 5e-3,
}


def computed(layers: str, task: Problem) -> dict[str, np.ndarray]:
    """Logits of the source images; what two steps say and change.

    logits (B, h, w, C); loss_source, loss_target and labelled (STEPS,); class_prior (C,); update
    (N,): the change of all parameters, one after the other.
    """
    import jax

    from benchmarks import ours, problem
    from dasac_jax.models.platform import traced_for

    dtype, precision = ours.PRECISIONS[task.dtype]
    jax.config.update("jax_default_matmul_precision", precision)
    batch = problem.adapt_batch(task)
    model = ours.network(task.network, dtype=dtype)
    begin = state = ours.begin(model, task.network)
    told = []
    with traced_for(layers):
        logits = jax.jit(model.apply)(begin.student, batch["source_image"])
        step = jax.jit(ours.adaptation(model, task.network))
        for _ in range(STEPS):
            state, metrics = step(state, batch)
            told.append(metrics)
    changes = jax.tree.map(lambda new, old: (new - old).ravel(), state.params, begin.params)
    names = ("loss_source", "loss_target", "labelled")
    return {name: np.array([metrics[name] for metrics in told]) for name in names} | {
        "logits": np.asarray(logits),
        "class_prior": np.asarray(state.class_prior),
        "update": np.concatenate([np.asarray(leaf) for leaf in jax.tree.leaves(changes)]),
    }


def compared(
    ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """How far the quantities of `computed` differ, and whether they stay within their bounds.

    The largest difference relative to the largest value of the reference; of the update the norm
    of the difference relative to the norm; of the share of labelled pixels the difference itself.
    """
    found = {}
    for name, bound in BOUNDS.items():
        difference = ours[name].astype(np.float64) - reference[name]
        if name == "update":
            error = np.linalg.norm(difference) / np.linalg.norm(reference[name])
        elif name == "labelled":
            error = np.abs(difference).max()
        else:
            error = np.abs(difference).max() / np.abs(reference[name]).max()
        # Written so that NaN fails.
        found[name] = {"difference": float(error), "bound": bound, "passed": bool(error <= bound)}
    return found


if __name__ == "__main__":
    np.savez(sys.argv[3], **computed(sys.argv[1], Problem(**json.loads(sys.argv[2]))))
