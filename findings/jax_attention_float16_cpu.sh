#!/usr/bin/env bash
# JAX 0.10.2 on a CPU (Python 3.11 to 3.13).
# jax.nn.dot_product_attention is documented for arrays of any floating-point type.
# Expected: float16 works on a CPU as float32 and bfloat16 do, and under jit as without it.
# Seen: without jit it works. Under jit, and so in jax.export for CPUs, it raises ValueError, "The
# precision 'F16_F16_F32' is not supported by dot_general on CPU": attention asks for that precision
# by itself. Casting queries, keys and values to float32 and the result back works.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

attend = jax.nn.dot_product_attention
for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
    x = jnp.ones((1, 8, 2, 16), dtype)  # (batch, tokens, heads, width)
    assert attend(x, x, x).dtype == dtype
    try:
        jax.jit(attend)(x, x, x)
        said = "works"
    except ValueError as error:
        said = str(error)
    print(f"{x.dtype.name} under jit: {said}")
    if dtype == jnp.float16:
        assert "F16_F16_F32" in said, "float16 works now"
    else:
        assert said == "works"
PYTHON
echo "as described: float16 is refused under jit alone"
