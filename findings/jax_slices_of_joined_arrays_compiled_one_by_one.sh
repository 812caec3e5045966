#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, on a CPU.
#
# A network's 200 small vectors are updated by an elementwise function. One would expect that joining
# them, so that the function is called once and its result is cut into pieces, is less to compile
# than 200 calls: it is the common advice against many small operations.
#
# Seen: XLA's CPU compiler compiles equal functions of equal shapes once, so that the 200 calls are
# one function in the program. The pieces of the joined result are slices with 200 different offsets,
# which are 200 functions, compiled one by one, with half the compiler's memory in a real network.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

cat > "$folder/compile.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp

vectors = [jnp.full(64, float(i)) for i in range(200)]


def apart(vectors, gradients):
    return [v * 0.9 + 0.1 * g for v, g in zip(vectors, gradients)]


def joined(vectors, gradients):
    (whole,) = apart([jnp.concatenate(vectors)], [jnp.concatenate(gradients)])
    return jnp.split(whole, len(vectors))


jax.jit({"apart": apart, "joined": joined}[sys.argv[1]]).lower(vectors, vectors).compile()
PYTHON

functions() {
    XLA_FLAGS="--xla_dump_to=$folder/$1 --xla_dump_hlo_as_text" JAX_PLATFORMS=cpu \
        "$folder/venv/bin/python" "$folder/compile.py" "$1"
    find "$folder/$1" -name "*jit_$1*ir-with-opt.ll" | wc -l
}
apart=$(functions apart) joined=$(functions joined)
echo "functions compiled: apart $apart, joined $joined"
[ "$apart" -le 3 ] && [ "$joined" -ge 200 ]
