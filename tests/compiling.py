"""How tests compile: quickly, since their programs run once or a few times.

Numbers that are compared with the authors' are compiled as users get them: by `OPTIMISED`.
"""

from importlib.metadata import version

# On its MLIR emitters XLA spends more than half of the time in which it compiles without
# optimising. JAX 0.10 can do without them; later versions do not know the flag, and XLA ends a
# program that gives one which it does not know.
_EMITTERS = "xla_cpu_use_fusion_emitters" if version("jaxlib").startswith("0.10.") else None

QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""Flags of XLA for small programs: compiling them takes longer than running them.

In one piece they compile with a tenth less of CPU time; other tests keep the other cores busy.
"""
OPTIMISED = {"xla_backend_optimization_level": 3}
"""Options of `jax.jit` that undo QUICKLY."""

if _EMITTERS:
    QUICKLY += f" --{_EMITTERS}=false"
    OPTIMISED[_EMITTERS] = True


def xla_flags(devices: int) -> str:
    """XLA_FLAGS of a process that compiles quickly, with so many simulated devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICKLY}"
