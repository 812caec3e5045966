"""Layers that are traced for another platform choose its ways to compute."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import layers, winograd
from dasac_jax.models.attention import attention
from dasac_jax.models.platform import platform, traced_for


def test_the_platform_is_the_one_here_unless_named():
    assert platform() == "cpu"
    with traced_for("gpu"):
        assert platform() == "gpu"
    with pytest.raises(ZeroDivisionError), traced_for("gpu"):
        raise ZeroDivisionError
    assert platform() == "cpu"


def test_minimal_filtering_is_for_cpus(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *_: True)
    conv = layers.Conv(4, dilation=2)
    x = jnp.zeros((1, 8, 8, 4))
    variables = {"params": {"kernel": jnp.zeros((3, 3, 4, 4))}}

    def program(name):
        with traced_for(name):
            return str(jax.make_jaxpr(replace(conv).apply)(variables, x))

    assert "conv_general_dilated" not in program("cpu") and "dot_general" in program("cpu")
    assert "conv_general_dilated" in program("gpu") and "dot_general" not in program("gpu")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_attention_of_float16_runs_here_whatever_it_is_traced_for(name):
    drawn = np.random.default_rng(0).standard_normal((3, 2, 6, 2, 8), np.float32)
    with traced_for(name):
        found = jax.jit(attention)(*drawn.astype(np.float16))
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, attention(*drawn), atol=2e-3)
