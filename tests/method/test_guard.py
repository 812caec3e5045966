"""What is skipped, and that nothing of it is left."""

import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method import guard


@pytest.mark.parametrize(
    ("value", "sound"),
    [(1.0, True), (-3e18, True), (np.nan, False), (-np.inf, False), (1e20, False)],
)
def test_sound(value, sound):
    tree = {"a": jnp.ones((3, 2)), "b": [jnp.array([0.0, value])]}
    assert bool(guard.is_sound(jnp.float32(1), tree)) == sound
    assert float(guard.skipped(jnp.array(sound))) == 1 - sound


def test_choose_keeps_every_bit():
    new, old = {"a": jnp.array([-0.0, 1e-45])}, {"a": jnp.array([np.nan, 2.0])}
    for sound, expected in ((True, new), (False, old)):
        chosen = guard.choose(jnp.array(sound), new, old)["a"]
        assert np.asarray(chosen).tobytes() == np.asarray(expected["a"]).tobytes()
