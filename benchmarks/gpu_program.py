"""What XLA makes of the adaptation step for an H100, without having one: memory, bytes moved and
library calls.

python benchmarks/gpu_program.py --dtype bfloat16 --remat

Needs the [cuda] extra, no GPU. It is compiled, not run: nothing is timed, no library is asked for
its fastest algorithm, and the working space that it would take is not counted. program_bytes.py
says how bytes are counted.
"""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import ours, problem, program_bytes
from benchmarks.refusal import refuse
from dasac_jax.runtime import data_parallel

# In the words of XLA's TargetConfig.
H100 = """
device_description_str: "NVIDIA H100 80GB HBM3"
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84929347584
  l2_cache_size: 52428800
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""
# Both would be chosen by timing on the device.
_OPTIONS = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False}


def compiled(task: problem.Problem) -> jax.stages.Compiled:
    """The step's program."""
    jax.devices()  # JAX looks for the plugin
    topology = topologies.get_topology_desc(
        "1x1x1", platform="cuda", topology="1x1x1", target_config=H100
    )
    jax.default_backend = lambda: "gpu"  # what layers ask for
    dtype, precision = ours.PRECISIONS[task.dtype]
    jax.config.update("jax_default_matmul_precision", precision)
    model = ours.network(task.network, dtype=dtype, remat=task.remat)
    step = ours.adaptation(model, task.network)
    step = partial(step, accumulate=task.accumulate, axis_name=data_parallel.AXIS)
    whole = PartitionSpec()
    mesh = Mesh(np.array(topology.devices), (data_parallel.AXIS,))
    placed = NamedSharding(mesh, whole)
    step = jax.shard_map(step, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    program = jax.jit(step, donate_argnums=0, in_shardings=placed, out_shardings=placed)
    batch = jax.eval_shape(lambda: problem.adapt_batch(task))
    state = jax.eval_shape(partial(ours.begin, model, task.network))
    return program.lower(state, batch).compile(compiler_options=_OPTIONS)


def gibibytes(program: jax.stages.Compiled) -> float:
    """What XLA sets aside, arguments included."""
    sizes = program.memory_analysis()
    arguments = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return (arguments - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes) / 2**30


def calls(program: jax.stages.Compiled) -> Counter[str]:
    """How often each function of a library is called; convolutions by their windows."""
    found = Counter()
    for line in program.as_text().splitlines():
        target = re.search(r'custom_call_target="__(cublas|cudnn)([^"]*)"', line)
        if target:
            # What a product or a convolution takes along, and the shape of a convolution.
            details = re.findall(
                r'"epilogue":"(\w+)"|"activation_mode":"(\w+)"|window={(.*?)}', line
            )
            found[" ".join(["".join(target.groups()), *map("".join, details)])] += 1
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", default="deeplabv2_resnet101")
    add("--size", nargs=2, type=int, metavar=("H", "W"), default=(512, 1024))
    add("--source", type=int, default=8)
    add("--groups", type=int, default=2)
    add("--dtype", choices=tuple(ours.PRECISIONS), default="bfloat16")
    add("--remat", action="store_true")
    add("--accumulate", type=int, default=1, metavar="N")
    flags = parser.parse_args(argv)
    if find_spec("jax_plugins") is None:
        refuse("XLA's compiler for GPUs is missing: pip install -e '.[cuda]'")
    height, width = flags.size
    task = problem.Problem(
        "step", flags.network, height, width, flags.source, flags.groups, flags.dtype, "gpu", 1,
        flags.remat, flags.accumulate,
    )  # fmt: skip
    program = compiled(task)
    moved = program_bytes.by_kind(program.as_text())
    print(f"{gibibytes(program):.1f} GiB")
    print(f"{moved.total() / 1e9:.1f} GB read and written")
    for kind, count in moved.most_common():
        print(f"{count / 1e9:9.1f} by {kind}")
    for name, count in sorted(calls(program).items()):
        print(f"{count:4} {name}")


if __name__ == "__main__":
    main()
