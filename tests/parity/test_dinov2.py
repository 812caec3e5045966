"""The encoder against recorded numbers of transformers' Dinov2Model, through the file's names."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from dasac_jax import interop
from dasac_jax.interop import dinov2_names
from dasac_jax.models import create_model, dinov2

GOLDEN = Path(__file__).parents[1] / "golden" / "dinov2"


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def file_of(recipe, arch):
    """The arrays behind the recorded numbers, under the names of transformers' files."""
    shapes = json.loads((GOLDEN / f"state_dict_{arch}.json").read_text(encoding="utf-8"))
    return {
        name: recipe.uniform(name, shape, 0.05, 0.3)
        if name.endswith("lambda1")
        else recipe.parameter(name, shape)
        for name, shape in shapes.items()
    }


def encoder_of(arch, arrays):
    model = create_model(arch)
    original = dinov2_names.from_transformers(arrays)
    variables = interop.variables_from_state_dict(arch, original)
    params = variables["params"]["encoder"]
    return dinov2.Encoder(model.width, model.depth, model.heads), {"params": params}


# At 518×518 nothing is interpolated; the others shrink the positions, one of them not square.
@pytest.mark.parametrize(
    ("arch", "height", "width"),
    [
        ("dinov2_vits14", 56, 84),
        ("dinov2_vits14", 140, 70),
        ("dinov2_vits14", 518, 518),
        ("dinov2_vitb14", 56, 84),
    ],
)
def test_recorded_tokens(recipe, golden, arch, height, width):
    recorded = golden(f"dinov2/{arch}_{height}x{width}")
    images = recipe.image("dino", 2, height, width)[: len(recorded["cls"])]
    encoder, variables = encoder_of(arch, file_of(recipe, arch))

    run = jax.jit(lambda v, x: encoder.apply(v, x, mutable=["intermediates"]))
    (tokens, first), seen = run(variables, images)

    state = seen["intermediates"]["blocks"]["after_5"][0][:, 1:].reshape(tokens.shape)
    every = 4 if (height, width) == (518, 518) else 1
    for name, ours in (("tokens", tokens), ("block6", state)):
        assert relative(ours[:, ::every, ::every], recorded[name]) < 1e-5, name
    assert relative(first, recorded["cls"]) < 1e-5
