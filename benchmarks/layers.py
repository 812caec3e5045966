"""One convolution at a time, in all the ways that give the same result: CPU time of each.

python benchmarks/layers.py --case 6 17 33 2048 19 12
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dasac_jax.models.layers import Conv
from dasac_jax.models.products import few_outputs, shifted

# Batch, height, width, inputs, outputs, dilation: the step's at 128×256.
CASES = (
    (6, 33, 65, 64, 64, 1),
    (6, 17, 33, 128, 128, 1),
    (6, 17, 33, 256, 256, 2),
    (6, 17, 33, 512, 512, 4),
    *((6, 17, 33, 2048, 19, dilation) for dilation in (6, 12, 18, 24)),
)


def chosen(x: jax.Array, kernel: jax.Array, d: int) -> jax.Array:
    """What the networks take."""
    if few_outputs(*kernel.shape[2:]):
        return shifted(x, [kernel], [d])[0]
    return Conv(kernel.shape[-1], dilation=d).apply({"params": {"kernel": kernel}}, x)


def native(x: jax.Array, kernel: jax.Array, d: int) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(d, d)] * 2,
        rhs_dilation=(d, d),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def im2col(x: jax.Array, kernel: jax.Array, d: int) -> jax.Array:
    """The nine neighbours side by side, one product."""
    return jnp.concatenate(_neighbours(x, d), -1) @ kernel.reshape(-1, kernel.shape[-1])


def products(x: jax.Array, kernel: jax.Array, d: int) -> jax.Array:
    """Nine products of shifted inputs, added."""
    taps = kernel.reshape(9, *kernel.shape[2:])
    return sum(part @ tap for part, tap in zip(_neighbours(x, d), taps, strict=True))


def space_to_batch(x: jax.Array, kernel: jax.Array, d: int) -> jax.Array:
    """d × d interleaved images, each convolved without dilation."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // d), -(-width // d)
    x = jnp.pad(x, ((0, 0), (0, rows * d - height), (0, columns * d - width), (0, 0)))
    x = x.reshape(batch, rows, d, columns, d, channels).transpose(0, 2, 4, 1, 3, 5)
    y = native(x.reshape(-1, rows, columns, channels), kernel, 1)
    y = y.reshape(batch, d, d, rows, columns, -1).transpose(0, 3, 1, 4, 2, 5)
    return y.reshape(batch, rows * d, columns * d, -1)[:, :height, :width]


WAYS = {way.__name__: way for way in (chosen, native, im2col, products, space_to_batch)}


def main(argv: Sequence[str] | None = None) -> None:
    """Print milliseconds: forward, gradient of the input, gradient of the kernel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs=6, type=int, metavar=tuple("BHWIOD"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    flags = parser.parse_args(argv)
    for case in [flags.case] if flags.case else CASES:
        batch, height, width, inputs, outputs, dilation = case
        random = np.random.default_rng(0)
        x, kernel, upstream = (
            jnp.asarray(random.standard_normal(shape, np.float32))
            for shape in (
                (batch, height, width, inputs),
                (3, 3, inputs, outputs),
                (batch, height, width, outputs),
            )
        )
        print(f"{inputs}→{outputs}, dilation {dilation}, {batch}×{height}×{width}")
        for name in flags.ways:
            times = " / ".join(
                f"{milliseconds(program):.1f}"
                for program in _programs(WAYS[name], dilation, x, kernel, upstream)
            )
            print(f"  {name:15s} {times}", flush=True)


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU time after a first call."""
    run()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return 1e3 * statistics.median(found)


def _programs(way, d, x, kernel, upstream) -> list[Callable[[], object]]:
    forward = jax.jit(lambda x, k: way(x, k, d))
    of_input = jax.jit(lambda x, k, u: jax.vjp(lambda x: way(x, k, d), x)[1](u))
    of_kernel = jax.jit(lambda x, k, u: jax.vjp(lambda k: way(x, k, d), k)[1](u))
    return [
        lambda: jax.block_until_ready(forward(x, kernel)),
        lambda: jax.block_until_ready(of_input(x, kernel, upstream)),
        lambda: jax.block_until_ready(of_kernel(x, kernel, upstream)),
    ]


def _neighbours(x: jax.Array, d: int) -> list[jax.Array]:
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
    return [x[:, i : i + height, j : j + width] for i in (0, d, 2 * d) for j in (0, d, 2 * d)]


if __name__ == "__main__":
    main()
