"""StableHLO programs have the bits of our own, and run where there is JAX and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from dasac_jax import models
from dasac_jax.errors import UserError
from dasac_jax.export import stablehlo
from dasac_jax.image.normalise import normalise
from dasac_jax.models import upsample, winograd
from dasac_jax.models.platform import platform

DEMO = "deeplabv2_demo"
SIZE = (40, 72)
# What a user writes.
RUN = """
import sys
import numpy as np
from jax import export

for name in ("dasac_jax", "flax"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is there")
with open(sys.argv[1], "rb") as file:
    network = export.deserialize(bytearray(file.read()))
found = network.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], **found)
"""


@pytest.fixture(scope="module")
def demo(draw):
    """The demo's network: module and variables."""
    model = models.create_model(DEMO)
    return model, draw(model)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(demo, images):
    """What our own program computes: logits, labels and probabilities."""
    model, variables = demo

    @jax.jit
    def run(variables, images):
        logits = upsample(model.apply(variables, normalise(images)), SIZE)
        return logits, logits.argmax(-1).astype(jnp.uint8), jax.nn.softmax(logits)

    return dict(zip(("logits", "labels", "probabilities"), run(variables, images), strict=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A folder of packages that holds JAX and what it requires.

    JAX reads programs with flatbuffers, which it does not name among its requirements.
    """
    folder, wanted, seen = tmp_path_factory.mktemp("alone"), ["jax", "flatbuffers"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files if ".." not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(found.locate_file(top)).resolve())
        needs = (x for x in found.requires or () if "extra ==" not in x)
        wanted += [re.match(r"[\w-]+", need)[0] for need in needs]
    return folder


def test_the_bits_of_our_own_where_there_is_jax_alone(demo, images, expected, alone, tmp_path):
    model, variables = demo
    content = stablehlo.serialised(
        model, variables, size=SIZE, outputs=tuple(expected), float16=False
    )
    (tmp_path / "network.stablehlo").write_bytes(content)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "run.py").write_text(RUN)
    # Without the packages that are installed here, and with those of `alone`.
    start = f"import sys, runpy; sys.path.insert(0, {str(alone)!r}); del sys.argv[0]; "
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + "runpy.run_path(sys.argv[0])", "run.py",
         "network.stablehlo", "images.npy", "found.npz"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "found.npz") as found:
        for name, wanted in expected.items():
            assert found[name].dtype == wanted.dtype
            np.testing.assert_array_equal(found[name], wanted, err_msg=name)
    assert len(np.unique(expected["labels"])) > 1


def test_float16(demo, images, expected):
    content = stablehlo.serialised(*demo, size=SIZE, outputs=("labels",), float16=True)
    weights = sum(value.nbytes for value in jax.tree.leaves(demo[1]))
    assert len(content) < 0.6 * weights
    program = export.deserialize(bytearray(content))
    # Unoptimised: compiling takes longer than running.
    compiled = jax.jit(program.call).lower(images).compile(
        compiler_options={"xla_backend_optimization_level": 0}
    )  # fmt: skip
    assert (compiled(images)["labels"] == expected["labels"]).mean() >= 0.995


def test_a_kernel_that_float16_cannot_hold(demo):
    model, variables = demo
    variables = jax.tree.map(np.copy, variables)
    variables["params"]["layer5"]["0"]["kernel"][0, 0, 0, 0] = -7e4
    with pytest.raises(UserError, match=r"layer5/0/kernel .* 70000.*--float16"):
        stablehlo.serialised(model, variables, size=SIZE, outputs=("labels",), float16=True)


def test_each_platform_has_its_own_ways(demo, monkeypatch):
    """Minimal filtering is for CPUs: the same layers do without it in the program for GPUs."""
    taken, conv = [], winograd.conv
    monkeypatch.setattr(winograd, "pays", lambda *_: True)
    monkeypatch.setattr(winograd, "conv", lambda *layer: taken.append(platform()) or conv(*layer))
    content = stablehlo.serialised(*demo, size=SIZE, outputs=("labels",), float16=False)
    assert set(taken) == {"cpu"}
    assert export.deserialize(bytearray(content)).platforms == ("cpu", "cuda")
