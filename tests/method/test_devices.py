"""The same training on any number of devices and processes, from the same global batches."""

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import compiling
import device_runs
import jax
import numpy as np
import pytest

from dasac_jax.runtime import data_parallel

CHILD = Path(device_runs.__file__)


@cache
def trained(stage, group_size, devices):
    """The state after ten steps on the first devices, and the record of them."""
    step, run = device_runs.step_and_state(stage, group_size, data_parallel.AXIS)
    if devices == jax.device_count():
        step, run = data_parallel.data_parallel(step), data_parallel.replicate(run)
    else:
        step = jax.pmap(
            step,
            axis_name=data_parallel.AXIS,
            in_axes=(None, 0),
            out_axes=(None, 0),
            devices=jax.local_devices()[:devices],
        )
    batches = device_runs.batches(stage, group_size)
    return device_runs.train(step, run, [device_runs.split(batch, devices) for batch in batches])


def worst(ours, theirs):
    """Largest relative error of the values logged at every step, and of the tensors at the end."""
    assert ours.keys() == theirs.keys()
    logged = [name for name in theirs if "[" not in name]
    assert {"loss_source", "class prior 0"} <= set(logged) < set(theirs)

    def apart(name):
        return np.abs(ours[name] - theirs[name].astype(np.float64))

    def largest(name):
        if not theirs[name].any():  # no step was skipped
            return apart(name).max()
        if name in logged and name != "teacher_distance":
            return (apart(name) / np.abs(theirs[name])).max()
        return np.linalg.norm(apart(name)) / np.linalg.norm(theirs[name])

    tensors = theirs.keys() - set(logged)
    return tuple(np.max([largest(name) for name in names]) for names in (logged, tensors))


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("stage", ["baseline", "adapt"])
def test_device_count_does_not_matter(stage, devices):
    # With eight devices each holds one of the four views of a group.
    _, ours = trained(stage, 4, devices)
    _, theirs = trained(stage, 4, 1)
    errors = worst(ours, theirs)
    print(stage, devices, errors)
    assert np.max(errors) < 1e-5


@pytest.mark.parametrize("stage", ["baseline", "adapt"])
def test_replicas_agree(stage):
    # pmap takes the step's word for the state being one copy: a forgotten mean shows only here.
    run, _ = trained(stage, 4, 8)
    leaves = jax.tree_util.tree_leaves_with_path(run)
    assert {len(leaf.addressable_shards) for _, leaf in leaves} == {8}
    for path, leaf in leaves:
        for shard in leaf.addressable_shards[1:]:
            np.testing.assert_array_equal(
                shard.data, leaf.addressable_data(0), err_msg=jax.tree_util.keystr(path)
            )


def test_two_processes_of_two_devices(tmp_path):
    outputs = [tmp_path / f"{i}.npz" for i in range(2)]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    root = str(CHILD.parents[1])
    environment = os.environ | {
        "XLA_FLAGS": compiling.xla_flags(devices=2),
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    children = [
        subprocess.Popen(
            [sys.executable, str(CHILD), str(port), "2", str(i), str(output)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i, output in enumerate(outputs)
    ]
    try:
        said = [child.communicate(timeout=240)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)

    for stage in device_runs.STAGES:
        _, theirs = trained(stage, device_runs.ITEMS, 1)
        for output in outputs:
            with np.load(output) as arrays:
                names = [name for name in arrays if name.startswith(f"{stage}/")]
                ours = {name.removeprefix(f"{stage}/"): arrays[name] for name in names}
            errors = worst(ours, theirs)
            print(stage, "two processes", errors)
            assert np.max(errors) < 1e-5
