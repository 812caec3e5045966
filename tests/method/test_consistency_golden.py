"""The method against the numbers that the authors' code recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from golden_runs import optimised, relative, windows

from dasac_jax.method import consistency
from dasac_jax.models import upsample

SIZE = (64, 128)
BETA = 1e-3
# groups, views of a group, pooling, discount
CASES = {
    "a": (2, 4, "average", True),
    "no_discount": (1, 4, "average", False),
    "no_pool": (2, 2, "none", True),
    "minentropy": (2, 4, "minentropy", True),
    "discount": (2, 4, "average", True),
}


@partial(optimised, static_argnames=("views", "pool", "discount"))
def method(logits, padded, prior, crops, student, *, views, pool, discount):
    """One target step's arithmetic, from the teacher's coarse logits to the loss's gradient."""
    probs = jax.nn.softmax(upsample(logits, SIZE))
    there, back = consistency.view_matrices(*crops, SIZE)
    prior = consistency.update_class_prior(prior, probs, momentum=0.99, beta=BETA)
    aligned = consistency.align(probs, padded, there)
    refined = consistency.fuse_views(probs, padded, there, back, group_size=views, pool=pool)
    labels, confidence = consistency.pseudo_labels(
        refined, padded, prior, lower=0.2, beta=BETA, discount=discount
    )
    ours = {"affine": there, "affine_inv": back, "class_prior": prior, "aligned": aligned}
    ours |= {"refined": refined, "labels": labels, "confidence": confidence}
    for weighting in ("pixel", "batch"):
        loss = partial(
            consistency.target_loss,
            focal_power=3,
            confidence_weighting="none" if pool == "none" else weighting,
            confidence_images=len(probs),
        )
        loss, gradient = jax.value_and_grad(loss)(student, labels, confidence, prior)
        ours |= {f"loss_{weighting}": loss, f"grad_{weighting}": gradient}
    return ours


@pytest.fixture(scope="module", params=CASES)
def case(request, golden, recipe):
    """Everything the method computes in one recorded case, and the record."""
    name = request.param
    groups, views, pool, discount = CASES[name]
    count, coarse = groups * views, (SIZE[0] // 8 + 1, SIZE[1] // 8 + 1)
    logits = recipe.uniform(f"{name}/teacher_logits", (count, *coarse, 19), -6, 6)
    student = recipe.uniform(f"{name}/student_logits", (count, *SIZE, 19), -3, 3)
    padded = recipe.labels(f"{name}/pad", count, *SIZE, classes=12) == 0
    prior = np.full(19, BETA, np.float32)
    if name == "discount":
        prior = np.linspace(0, 1.5e-3, 19, dtype=np.float32)
        prior[7] = BETA
    crops = windows(recipe.uniform(f"{name}/crops", (groups, views, 4), 0, 1), SIZE)

    inputs = logits, padded, prior, crops, student
    ours = method(*inputs, views=views, pool=pool, discount=discount)
    return ours, golden(f"consistency_{name}")


class TestAgainstTheAuthorsNumbers:
    def test_view_matrices(self, case):
        ours, golden = case
        assert relative(ours["affine"], golden["affine"]) < 1e-6
        assert relative(ours["affine_inv"], golden["affine_inv"]) < 1e-6

    def test_class_prior(self, case):
        ours, golden = case
        assert relative(ours["class_prior"], golden["class_prior"]) < 1e-6

    def test_aligned_and_refined(self, case):
        ours, golden = case
        recorded = {"aligned", "refined"} & golden.keys()  # without pooling nothing is aligned
        assert "refined" in recorded
        for name in recorded:
            assert relative(ours[name][:, ::4, ::4], golden[name]) < 1e-5
        assert relative(ours["refined"].sum((1, 2)), golden["refined_sum"]) < 1e-5

    def test_pseudo_labels(self, case):
        ours, golden = case
        assert relative(ours["confidence"], golden["confidence"]) < 1e-5
        assert np.mean(ours["labels"] != golden["labels"]) <= 1e-4
        assert 0.05 < np.mean(golden["labels"] != 255) < 0.3

    @pytest.mark.parametrize("weighting", ["pixel", "batch"])
    def test_target_loss_and_its_gradient(self, case, weighting):
        ours, golden = case
        loss = golden[f"loss_{weighting}"][0]
        assert abs(ours[f"loss_{weighting}"] - loss) <= 1e-6 * loss
        gradient = ours[f"grad_{weighting}"][:, ::8, ::8]
        assert relative(gradient, golden[f"grad_{weighting}"]) < 1e-5
