#!/usr/bin/env bash
# JAX 0.10.2, four simulated CPU devices (Python 3.11 to 3.13).
# With out_axes=None a pmapped function says that its result is the same on all devices, as the
# weights of data-parallel training are after the gradients' mean over the devices.
# Expected: where the mean was forgotten, JAX notices that the devices hold different values, or
# gives one of them to all.
# Seen: neither. The array calls itself fully replicated, prints the first device's value, and its
# shards go on to differ: each device trains a network of its own, while the log and the checkpoint
# show the first device's.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4
"$folder/venv/bin/python" - <<'PYTHON'
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

mesh = Mesh(np.array(jax.devices()), ("batch",))
weights = jax.device_put(np.float32(0), NamedSharding(mesh, PartitionSpec()))
batch = np.arange(4, dtype=np.float32)
step = jax.pmap(
    lambda weights, batch: weights - 0.1 * batch, "batch", in_axes=(None, 0), out_axes=None
)
for _ in range(2):
    weights = step(weights, batch)
shards = [float(shard.data) for shard in weights.addressable_shards]
print("replicated:", weights.is_fully_replicated, "value:", float(weights), "shards:", shards)
assert weights.is_fully_replicated
assert float(weights) == 0.0
assert len(set(shards)) == 4, "the devices agree now"
print("as described: four different networks under one name")
PYTHON
