"""What convolutions computed another way are compared with."""

from collections.abc import Callable

import jax
import pytest


@pytest.fixture(scope="session")
def direct() -> Callable[[jax.Array, jax.Array, int], jax.Array]:
    """direct(x, kernel, dilation): XLA's own 3×3 convolution, padded by the dilation."""

    def convolution(x, kernel, dilation):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            [(dilation, dilation)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )

    return convolution
