"""A prediction that is killed goes on, and on any number of devices the files are the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from predictions import picture, read, tree

import dasac_jax
from dasac_jax import models
from dasac_jax.checkpoints import store

ROOT = Path(__file__).parents[2]
NAMES = ("aachen_000000_000019_leftImg8bit", "aachen_000001_000019_leftImg8bit")


@struct.dataclass
class FullState:
    params: Any
    batch_stats: Any
    step: Any


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A checkpoint of the demo's network and many small images."""
    folder = tmp_path_factory.mktemp("demo")
    model = models.create_model("deeplabv2_demo")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), dict(shapes))
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    manager = store.open_manager(folder / "trained")
    facts = {"arch": "deeplabv2_demo", "num_classes": 19}
    store.save(manager, FullState(**variables, step=np.int32(1)), metadata=facts)
    store.finish(manager)
    for i in range(150):
        picture(folder / "in" / f"{i}.png", i, (48, 40))
    return folder


def start(demo, output, devices):
    """The command as a user runs it, on simulated devices."""
    return subprocess.Popen(
        [sys.executable, "-m", "dasac_jax.predict", demo / "trained", "--images", demo / "in",
         "--output", output, "--confidence"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
    )  # fmt: skip


def test_neither_devices_nor_being_killed_change_a_file(demo, tmp_path):
    """One device in one go; two devices, killed as soon as there is something, and again."""
    with start(demo, tmp_path / "one", 1) as process:
        told = process.communicate()[1].splitlines()
        assert process.returncode == 0
    assert [line.split("  ")[0] for line in told] == [
        f"predict step {done}/150" for done in range(10, 151, 10)
    ]
    with start(demo, tmp_path / "two", 2) as process:
        while not list(tmp_path.glob("two/labels/*.png")):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    left = list(tmp_path.glob("two/*/*.png"))
    assert 0 < len(left) < 300
    assert {read(path).shape for path in left} == {(40, 48)}
    with start(demo, tmp_path / "two", 2) as process:
        said, complaint = process.communicate()
        assert process.returncode == 0 and all("predict step" in x for x in complaint.splitlines())
    done = int(re.match(r"(\d+) images predicted in .* s, (\d+) were there", said)[2])
    assert 0 <= done < 150
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert one == two and len(one) == 301
    network = dasac_jax.load(demo / "trained")
    for i in range(3):
        labels, _ = network.predict(read(demo / "in" / f"{i}.png"))
        np.testing.assert_array_equal(read(tmp_path / "one" / "labels" / f"{i}.png"), labels)
        assert len(np.unique(labels)) > 1
