#!/usr/bin/env bash
# optax 0.2.6, JAX 0.10.2 and PyTorch 2.13.0 on the CPU (Python 3.11 to 3.13).
# Both implement Adam by the same formulas; a network that is carried over from PyTorch to JAX is
# expected to move alike to rounding (1e-7 relative in float32) when the gradients are the same.
# Seen: the first three updates differ by 1e-5 of the largest with the usual second decay of 0.999.
# optax computes 1 - 0.999**step in float32, where 0.999 is already rounded and the difference
# cancels; PyTorch computes it in Python's double precision. Who compares the two needs a bound of
# about 1e-5 for the first steps, or a decay that float32 holds exactly, for which they agree.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 optax==0.2.6 numpy==2.3.4 "${TORCH:-torch==2.13.0}"
export JAX_PLATFORMS=cpu
"$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

gradients = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)


def largest_difference(decay):
    """Of the updates of three steps, relative to the largest one."""
    parameter = torch.nn.Parameter(torch.zeros(1000))
    theirs = torch.optim.Adam([parameter], lr=1.0, betas=(0.5, decay), eps=1e-8)
    adam = optax.adam(1.0, b1=0.5, b2=decay, eps=1e-8)
    ours, state = jnp.zeros(1000), adam.init(jnp.zeros(1000))
    worst = 0.0
    for gradient in gradients:
        before = parameter.detach().clone()
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        update, state = jax.jit(adam.update)(gradient, state)
        expected = (parameter.detach() - before).numpy()
        worst = max(worst, np.abs(np.asarray(update) - expected).max() / np.abs(expected).max())
    return worst


usual, exact = largest_difference(0.999), largest_difference(1 - 2**-10)
print(f"decay 0.999: {usual:.1e}; decay 1 - 2**-10, which float32 holds: {exact:.1e}")
assert usual > 2e-6, "they agree to rounding now"
assert exact < 1e-6
print("as described")
PYTHON
