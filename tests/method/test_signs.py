"""The signs of an adaptation step, counted pixel by pixel, and that they change nothing."""

import jax
import numpy as np
import pytest
import tiny_steps

from dasac_jax.method import signs

SIZE, CLASSES, LOWER = (2, 3, 4), 3, 0.2  # two views of 3×4 pixels


@pytest.fixture(scope="module")
def arrays():
    """Predictions of teacher and student, and which pixels are padded."""
    rng = np.random.default_rng(3)
    probs, refined = (rng.dirichlet(np.ones(CLASSES), SIZE).astype(np.float32) for _ in range(2))
    logits = rng.normal(size=(*SIZE, CLASSES)).astype(np.float32)
    return probs, refined, logits, rng.random(SIZE) < 0.3


def found(probs, refined, logits, padded):
    prior = np.array([1.0, 1.0, 1e-9], np.float32)  # the last class's threshold is discounted
    metrics = signs.of_teacher(
        probs, refined, padded, prior, lower=LOWER, upper=0.75, beta=1e-3, discount=True
    )
    metrics |= signs.of_student(logits, refined.argmax(-1), padded)
    return jax.device_get(signs.relative_to_seen(metrics))


def test_shares_of_what_shows_an_image(arrays):
    probs, refined, logits, padded = arrays
    metrics = found(*arrays)
    assert set(metrics) == set(signs.NAMES)
    own, pooled, student = (x.argmax(-1)[~padded] for x in (probs, refined, logits))
    for name, classes in (("share_teacher", own), ("share_student", student)):
        expected = np.bincount(classes, minlength=CLASSES) / len(classes)
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-6)
    assert metrics["agreement_views"] == pytest.approx((own == pooled).mean())
    assert metrics["agreement_student"] == pytest.approx((student == pooled).mean())
    assert metrics["at_floor"] == pytest.approx((pooled == 2).mean())
    assert 0 < metrics["at_floor"] < 1 and 0 < metrics["agreement_views"] < 1


def test_where_nothing_is_seen_nothing_is_divided_by(arrays):
    metrics = found(*arrays[:3], np.ones(SIZE, bool))
    assert all((value == 0).all() for value in map(np.asarray, metrics.values()))


def test_a_step_tells_them_and_does_the_same(model, run, batches, step):
    plain, few = step(run, batches[0])
    told = jax.jit(tiny_steps.adapt(model, tell_signs=True, **tiny_steps.VALUES))
    state, metrics = told(run, batches[0])
    assert set(metrics) == {*few, *signs.NAMES}
    # Two programs, of which XLA may round each sum in its own way: so it is as precise as whole
    # arrays are and as their largest number is, not as their smallest.
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        apart = np.subtract(ours, theirs, dtype=np.float64)
        theirs = np.asarray(theirs, np.float64)
        assert np.linalg.norm(apart) <= 1e-6 * np.linalg.norm(theirs)
        assert np.abs(apart).max(initial=0) <= 1e-6 * np.abs(theirs).max(initial=0)
    assert metrics["share_student"].sum() == pytest.approx(1, abs=1e-5)
    assert 0 < metrics["agreement_student"] < 1


def test_parts_of_a_batch_give_the_signs_of_the_whole(model, run, batches):
    def told(parts):
        adapt = tiny_steps.adapt(model, accumulate=parts, tell_signs=True)
        found = jax.jit(lambda: adapt(run, batches[0])[1])()  # the gradient is left out
        return {name: found[name] for name in signs.NAMES}

    tiny_steps.assert_trees_equal(told(2), told(1), rtol=1e-5)
