"""Forward passes of the three networks against the authors' numbers, from the same weights."""

import numpy as np
import pytest

from dasac_jax.models import create_model, upsample, winograd

NETWORKS = ("deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn")


@pytest.mark.parametrize("arch", NETWORKS)
def test_logits_and_their_upsampling(arch, runs, recipe, golden):
    assert_like_the_authors(arch, runs, recipe, golden)


def test_by_minimal_filtering(runs, recipe, golden, monkeypatch):
    """As on large images, where it pays: the recorded ones are so small that they go without."""
    monkeypatch.setattr(winograd, "_MIN_PIXELS", 0)
    taken, pays = [], winograd.pays
    monkeypatch.setattr(winograd, "pays", lambda *layer: taken.append(pays(*layer)) or taken[-1])
    assert_like_the_authors("deeplabv2_resnet101", runs, recipe, golden)
    assert sum(taken) >= 8


def assert_like_the_authors(arch, runs, recipe, golden):
    recorded = golden(f"forward_{arch}_64x128")
    images = recipe.image("forward", 2, 64, 128)
    variables = runs.variables(arch, runs.start(recipe, arch))
    model = create_model(arch)

    logits = runs.optimised(model.apply)(variables, images)
    upsampled = np.asarray(upsample(logits, (64, 128)))

    assert logits.shape == recorded["logits"].shape
    assert runs.relative(logits, recorded["logits"]) < 1e-5
    assert runs.relative(upsampled[:, 64 // 3], recorded["logits_up_row"]) < 1e-5
    sums = upsampled.astype(np.float64).sum((1, 2))
    assert runs.relative(sums, recorded["logits_up_sum"]) < 1e-5
