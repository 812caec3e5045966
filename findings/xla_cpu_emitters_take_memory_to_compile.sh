#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, on a CPU.
#
# Compiling the gradient of a small network, 40 layers of a convolution, a normalisation and a ReLU,
# one would expect to need less memory than its parameters and activations do, a few MiB, and the
# way in which XLA emits the code of its fusions to make no great difference.
#
# Seen: with its default, the emitters by MLIR, XLA's CPU compiler holds what it makes for all fusions
# at the same time, more than 10 MiB a layer: 0.6 GiB at its peak, most of a small program's memory.
# With the older emitters, which a flag of this version brings back (later versions do not know it),
# it is less than a fifth of that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

cat > "$folder/compile.py" <<'PYTHON'
import resource

import jax
import jax.numpy as jnp


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MiB on Linux


def loss(layers, x):
    for kernel, scale in layers:
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x - x.mean((0, 1, 2))
        x = jax.nn.relu(x * jax.lax.rsqrt((x**2).mean((0, 1, 2)) + 1e-5) * scale)
    return (x**2).mean()


# No two layers are alike, so that no function of the program is compiled for several of them.
widths = [3, *range(8, 48)]
layers = [
    (jnp.ones((3, 3, before, after)), jnp.ones(after))
    for before, after in zip(widths, widths[1:])
]
lowered = jax.jit(jax.value_and_grad(loss)).lower(layers, jnp.ones((2, 32, 48, 3)))
before = peak()
lowered.compile()
print(peak() - before)
PYTHON

compiling() {
    XLA_FLAGS="$1" JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/compile.py"
}
by_mlir=$(compiling "") before=$(compiling "--xla_cpu_use_fusion_emitters=false")
echo "compiling took $by_mlir MiB by default, $before MiB with the older emitters"
[ "$by_mlir" -ge 400 ] && [ "$by_mlir" -ge "$((5 * before))" ]
