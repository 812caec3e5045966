#!/usr/bin/env bash
# JAX 0.10.2 on CPU devices, two processes on one machine (Python 3.11 to 3.13).
# jax.experimental.multihost_utils.broadcast_one_to_all gives all processes the values of one of
# them, for instance a checkpoint's weights that only the first process reads.
# Expected: the same bits everywhere.
# Seen: it sums the values of process 0 with zeros of the others, so that -0.0 becomes 0.0 on all of
# them, process 0 included. Checkpoints that are compared bit for bit differ; broadcasting the
# bytes as unsigned whole numbers keeps them.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat >"$folder/process.py" <<'PYTHON'
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

address, process = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, process)
mine = np.array([-0.0, 1.5], np.float32) if process == 0 else np.zeros(2, np.float32)
found = np.asarray(multihost_utils.broadcast_one_to_all(mine))
kept = np.asarray(multihost_utils.broadcast_one_to_all(mine.view(np.uint32))).view(np.float32)
print(f"process {process}: {found.tolist()} as floats, {kept.tolist()} as whole numbers")
assert found[1] == kept[1] == 1.5
assert not np.signbit(found[0]), "the sign of zero is kept now"
assert np.signbit(kept[0])
PYTHON
port="$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')"
export JAX_PLATFORMS=cpu
"$folder/venv/bin/python" "$folder/process.py" "localhost:$port" 1 &
other=$!
"$folder/venv/bin/python" "$folder/process.py" "localhost:$port" 0
wait "$other"
echo "as described: -0.0 arrives as 0.0"
