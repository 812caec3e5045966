#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, on a CPU (jaxlib 0.12.0.1 does the same).
#
# JAX's persistent compilation cache is there so that the second start of a program need not wait for
# its compiler. One would expect that reading a stored program takes a small part of compiling it,
# and twice as long for a program that is twice as large.
#
# Seen: of the gradient of a chain of matrix products, a program three times as long takes more than
# six times as long to load, and then nearly as long as compiling it anew. By a profile, XLA's CPU
# backend looks every library call of the stored program up by walking through all of its
# instructions, and compares the calls pairwise. ResNet-101's training step takes seconds to load.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

cat > "$folder/load.py" <<'PYTHON'
import time

import jax
import jax.numpy as jnp


def seconds(layers):
    """CPU seconds to compile the gradient of a chain of so many layers, or to load it."""

    def loss(kernels, x):
        for kernel in kernels:
            x = jax.nn.relu(x @ kernel) + x
        return (x**2).sum()

    jax.clear_caches()
    kernels = [jax.ShapeDtypeStruct((128, 128), jnp.float32)] * layers
    images = jax.ShapeDtypeStruct((64, 128), jnp.float32)
    lowered = jax.jit(jax.grad(loss)).lower(kernels, images)
    began = time.process_time()
    lowered.compile()
    return time.process_time() - began


for layers in (500, 1500):
    print(seconds(layers), seconds(layers))
PYTHON

JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$folder/programs" \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
    "$folder/venv/bin/python" "$folder/load.py" > "$folder/seconds"
echo "CPU seconds to compile, to load; 500 and 1500 layers:"
cat "$folder/seconds"
ls "$folder/programs" | grep --quiet jit_loss  # it was stored, and so loaded
awk '{ compile[NR] = $1; load[NR] = $2 }
     END { exit !(load[2] > 6 * load[1] && load[2] > compile[2] / 2) }' "$folder/seconds"
