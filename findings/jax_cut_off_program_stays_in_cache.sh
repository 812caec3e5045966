#!/usr/bin/env bash
# JAX 0.12.0.1 on a CPU (Python 3.11 to 3.13), with jax_compilation_cache_dir.
# A compiled program is written to the cache in place, so that a process that is killed meanwhile (a
# job at its time limit, an operator with kill -9) leaves a file that is cut off.
# Expected: the next process compiles the program once more and replaces the file; or else the lock
# and the eviction of jax_compilation_cache_max_size see to it.
# Seen: each later process warns, compiles and keeps nothing, since a file that exists is never
# written again; with jax_compilation_cache_max_size as well. Only removing the file helps.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 filelock==3.20.0
cat >"$folder/process.py" <<'PYTHON'
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp

folder, size, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_compilation_cache_max_size", size)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def double_sine(x):
    return 2 * jnp.sin(x)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    jax.jit(double_sine)(jnp.ones((3, 3)))
(program,) = pathlib.Path(folder).glob("jit_double_sine*-cache")
told = [str(x.message) for x in caught if "jit_double_sine" in str(x.message)]
print(f"limit {size}, {kind}: {program.stat().st_size} bytes, {told}")
if kind == "first":
    assert not told
    whole = program.read_bytes()
    program.write_bytes(whole[: len(whole) // 2])  # what a process killed in write_bytes leaves
    cut = len(whole) // 2
    for again in ("second", "third"):
        subprocess.run([sys.executable, __file__, folder, str(size), again], check=True)
        assert program.stat().st_size == cut, "it is replaced now"
else:
    assert len(told) == 1 and "Error reading persistent compilation cache entry" in told[0]
PYTHON
export JAX_PLATFORMS=cpu
"$folder/venv/bin/python" "$folder/process.py" "$folder/unlimited" -1 first
"$folder/venv/bin/python" "$folder/process.py" "$folder/limited" 1000000000 first
echo "as described: a program that was cut off once is compiled at every start"
