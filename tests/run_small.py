"""The command line with a network of two convolutions, which compiles in no time.

python run_small.py [STAGE STEP SIGNAL] --config … (the signal comes before that step)
"""

import sys
from typing import Any

import jax.numpy as jnp
import run_hooked
from absl import app
from device_runs import TinyNetwork

from dasac_jax import main, models, recipe_flags
from dasac_jax.training import final_scores


def create_model(
    arch: str, num_classes: int = 19, dtype: Any = jnp.float32, **options: Any
) -> TinyNetwork:
    """As `models.create_model`, whatever the architecture is called."""
    del arch
    return TinyNetwork(num_classes=num_classes, dtype=dtype, **options)


if __name__ == "__main__":
    models.create_model = create_model
    final_scores.STATISTICS_STEPS = 5
    flags_from = next(i for i, x in enumerate(sys.argv) if x.startswith("--"))
    if flags_from > 1:
        run_hooked.interrupt(*sys.argv[1:flags_from])
    argv = [sys.argv[0], *sys.argv[flags_from:]]
    app.run(main.main, argv=argv, flags_parser=recipe_flags.parse_flags)
