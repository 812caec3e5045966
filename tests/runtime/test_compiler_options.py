"""The compiler's options for forward passes, where XLA knows them."""

import jax
import jax.numpy as jnp
import pytest

from dasac_jax.runtime import compiler_options


@pytest.fixture(autouse=True)
def forgotten():
    """What was found out about this version of XLA, before and after a test."""
    compiler_options.of_prediction.cache_clear()
    yield
    compiler_options.of_prediction.cache_clear()


def libraries(options):
    """Whether a product and a convolution are handed to YNNPACK."""
    x, kernel = jnp.ones((1, 64, 64, 64)), jnp.ones((3, 3, 64, 64))

    def convolved(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    product = jax.jit(jnp.matmul, compiler_options=options).lower(x[0, 0], x[0, 0])
    convolution = jax.jit(convolved, compiler_options=options).lower(x, kernel)
    return ["ynn_fusion" in lowered.compile().as_text() for lowered in (product, convolution)]


def test_products_are_not_handed_to_ynnpack_but_convolutions_are():
    options = compiler_options.of_prediction()
    assert options, f"jaxlib {jax.lib.__version__} has other names for its libraries"
    by_default = libraries(None)
    assert libraries(options) == [False, by_default[1]]


def test_nothing_is_asked_for_where_xla_does_not_know_it(monkeypatch):
    monkeypatch.setattr(compiler_options, "_LIBRARIES", {"xla_cpu_of_another_version": "1"})
    assert compiler_options.of_prediction() is None


def test_nothing_is_asked_for_on_gpus(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options.of_prediction() is None
