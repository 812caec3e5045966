"""What XLA is asked for where a network only predicts, on CPUs."""

import functools

import jax

_LIBRARIES = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


@functools.cache
def of_prediction() -> dict[str, str] | None:
    """The `compiler_options` of `jax.jit` for a forward pass alone, None where there are none.

    By default XLA hands matrix products, convolutions and reductions to YNNPACK. Products of the
    sizes that forward passes have take less time in Eigen, XLA's other library, so they are left
    out of the list; benchmarks/NOTES.md has the figures. The option is experimental: where this
    version of XLA does not know it, or one of its values, XLA decides.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_LIBRARIES).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _LIBRARIES
