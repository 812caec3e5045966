"""The command line with a network of two convolutions, which compiles in no time.

python run_small.py [HOOK ARGUMENT …] --config … (a hook of run_hooked.py and what it is to do)
"""

import sys
from typing import Any

import jax.numpy as jnp
import run_hooked
from device_runs import TinyNetwork

from dasac_jax import models
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
    run_hooked.run(sys.argv)
