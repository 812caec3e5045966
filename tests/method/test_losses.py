"""Cross entropy by hand, and what ignored pixels do to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.method.losses import cross_entropy, pixel_cross_entropy


@pytest.fixture
def logits():
    return 3 * np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)


@pytest.fixture
def labels():
    labels = np.random.default_rng(1).integers(0, 5, (2, 4, 6)).astype(np.int32)
    labels[0, 0], labels[1, 2:] = 255, -1
    return labels


def test_of_every_pixel(logits, labels):
    result = pixel_cross_entropy(logits, labels)
    for index in np.ndindex(labels.shape):
        scores, label = logits[index].astype(np.float64), labels[index]
        expected = np.log(np.exp(scores).sum()) - scores[label] if 0 <= label < 5 else 0
        assert float(result[index]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_mean_counts_ignored_pixels(logits, labels):
    by_pixel = np.asarray(pixel_cross_entropy(logits, labels), np.float64)
    assert float(cross_entropy(logits, labels)) == pytest.approx(by_pixel.mean(), rel=1e-6)
    assert by_pixel.mean() < by_pixel[labels >= 0].mean()


def test_all_ignored_is_zero_with_a_zero_gradient(logits):
    ignored = jnp.full(logits.shape[:3], 255)
    loss, grads = jax.value_and_grad(cross_entropy)(logits, ignored)
    assert loss == 0
    assert not np.asarray(grads).any()


def test_large_logits_stay_finite(labels):
    logits = jnp.full((2, 4, 6, 5), 1e4).at[..., 0].set(-1e4)
    loss, grads = jax.value_and_grad(cross_entropy)(logits, labels)
    assert np.isfinite(loss)
    assert np.isfinite(grads).all()


def test_float32_from_bfloat16_logits(logits, labels):
    rounded = jnp.asarray(logits, jnp.bfloat16)
    result = pixel_cross_entropy(rounded, labels)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, pixel_cross_entropy(rounded.astype(jnp.float32), labels))
