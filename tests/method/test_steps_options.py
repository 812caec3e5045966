"""Every option of the method reaches the step: against its functions, called one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_steps import BETA

from dasac_jax.method import consistency
from dasac_jax.models import upsample


class TestOptionsOfTheMethod:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"pool": "minentropy"},
            {"pool": "none"},
            {"discount": False},
            {"confidence_weighting": "none"},
            {"confidence_weighting": "batch", "confidence_images": 2},
            {"focal_power": 0.0},
            {"threshold_lower": 0.6},
            {"threshold_upper": 0.95},
            {"prior_momentum": 0.5},
            {"beta": 0.5},
        ],
        ids=str,
    )
    def test_reaches_the_loss(self, options, model, look, run, batches):
        batch = batches[0]
        # A step that is no first one: the prior is not reset to β.
        prior = jnp.array([2e-4, 5e-4, BETA, 0.02, 0.3])
        run = run.replace(step=jnp.int32(1), class_prior=prior)
        metrics, updated = look(run, batch, **options)
        expected = by_hand(model, run, batch, **options)
        assert metrics["loss_target"] == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert metrics["labelled"] == pytest.approx(float(expected["labelled"]), abs=1e-6)
        np.testing.assert_allclose(updated, expected["prior"], rtol=1e-5)
        if options:
            plain = by_hand(model, run, batch)
            assert any(abs(plain[name] - expected[name]).max() > 1e-4 for name in plain)

    def test_zooming_out(self, model, look, run, batches):
        # Views of 1.5 times the frame: the frame fills their middle two thirds.
        height, width = batches[0]["padded"].shape[1:]
        padded = np.ones((8, height, width), bool)
        padded[:, height // 6 : -height // 6, width // 6 : -width // 6] = False
        to_reference, from_reference = consistency.view_matrices(
            np.zeros((8, 2)), np.full(8, 1.5), np.ones(8), (height, width)
        )
        batch = batches[0] | {
            "padded": padded, "to_reference": to_reference, "from_reference": from_reference
        }  # fmt: skip
        metrics, _ = look(run, batch)
        assert 0 < metrics["labelled"] < 1 - padded.mean()
        expected = by_hand(model, run.replace(class_prior=jnp.full(5, BETA)), batch)
        assert metrics["loss_target"] == pytest.approx(float(expected["loss"]), rel=1e-5)


def by_hand(
    model,
    run,
    batch,
    *,
    pool="average",
    discount=True,
    confidence_weighting="pixel",
    confidence_images=None,
    focal_power=3.0,
    threshold_lower=0.1,
    threshold_upper=0.75,
    prior_momentum=0.99,
    beta=BETA,
):
    """What the method's functions give when they are called one by one; nothing is dropped out."""
    size = batch["padded"].shape[1:]
    views = batch["padded"], batch["to_reference"], batch["from_reference"]
    probs = jax.nn.softmax(upsample(model.apply(run.teacher, batch["teacher_view"]), size))
    prior = consistency.update_class_prior(
        run.class_prior, probs, momentum=prior_momentum, beta=beta
    )
    refined = consistency.fuse_views(probs, *views, group_size=4, pool=pool)
    labels, confidence = consistency.pseudo_labels(
        refined, views[0], prior,
        upper=threshold_upper, lower=threshold_lower, beta=beta, discount=discount,
    )  # fmt: skip
    loss = consistency.target_loss(
        upsample(model.apply(run.student, batch["student_view"]), size), labels, confidence, prior,
        focal_power=focal_power,
        confidence_weighting=confidence_weighting, confidence_images=confidence_images,
    )  # fmt: skip
    return {"loss": loss, "labelled": (labels != 255).mean(), "prior": prior}
