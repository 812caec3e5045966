"""The momentum buffers in a torch SGD's state find their parameters."""

import copy
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.momentum import buffers, parameter_groups
from dasac_jax.interop.names import entries

SNAPSHOTS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("snapshots.py"))))
ARCH = "deeplabv2_vgg16_bn"
SHAPES = entries(ARCH, 19)


@pytest.fixture
def opt():
    """(state, buffers by name) that a test may change, but for the arrays."""
    state, named = SNAPSHOTS.optimiser(ARCH)
    groups = [{**group, "params": list(group["params"])} for group in state["param_groups"]]
    return {"state": dict(state["state"]), "param_groups": groups}, named


@pytest.mark.parametrize("arch", SNAPSHOTS.NETWORKS)
def test_groups_are_those_of_the_authors(arch):
    assert parameter_groups(arch, entries(arch, 19)) == SNAPSHOTS.groups(arch)


def test_each_buffer_goes_to_its_parameter(opt):
    state, named = opt
    found, _ = buffers(ARCH, SHAPES, state)
    assert found.keys() == named.keys()
    for name, buffer in named.items():
        np.testing.assert_array_equal(found[name], buffer, err_msg=name)


def test_ids_are_arbitrary(opt):
    state, named = opt
    numbers = {number: 139_000_000_000_000 - 7 * number for number in state["state"]}
    state["state"] = {numbers[n]: entry for n, entry in reversed(state["state"].items())}
    for group in state["param_groups"]:
        group["params"] = [numbers[n] for n in group["params"]]
    found, _ = buffers(ARCH, SHAPES, state)
    for name, buffer in named.items():
        np.testing.assert_array_equal(found[name], buffer, err_msg=name)


def test_buffers_may_not_have_been_made_yet(opt):
    state, named = opt
    del state["state"][0]
    state["state"][1] = {"momentum_buffer": None}
    state["state"][2] = {}
    found, _ = buffers(ARCH, SHAPES, state)
    assert list(found) == list(named)[3:]
    assert buffers(ARCH, SHAPES, {**state, "state": {}})[0] == {}


def adam(state):
    for entry in state["state"].values():
        entry.clear()
    for group in state["param_groups"]:
        del group["momentum"], group["nesterov"]
        group["betas"] = (0.5, 0.999)
    state["state"] = {0: {"step": 3, "exp_avg": np.zeros(1), "exp_avg_sq": np.zeros(1)}}


def drop_a_parameter(state):
    state["param_groups"][1]["params"].pop()


def drop_a_group(state):
    state["param_groups"].pop()


def give_a_stranger(state):
    state["state"][10_000] = {"momentum_buffer": np.zeros(3)}


def number_twice(state):
    state["param_groups"][0]["params"][1] = 0
    del state["state"][1]


def reshape(state):
    state["state"][1] = {"momentum_buffer": np.zeros(3, np.float32)}


def replace_by_text(state):
    state["state"][1] = {"momentum_buffer": "text"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (adam, "opt is the state of Adam, not of SGD; save the file without 'opt'"),
        (drop_a_parameter, r"groups of \[26, 25, 6, 6\] parameters, those of .* \[26, 26, 6, 6\]"),
        (drop_a_group, r"groups of \[26, 26, 6\] parameters"),
        (give_a_stranger, r"does not number its parameters uniquely \(\[10000\]\)"),
        (number_twice, "does not number its parameters uniquely"),
        (reshape, r"momentum of features\.1\.weight is \(3,\) instead of \(64,\)"),
        (replace_by_text, r"momentum of features\.1\.weight is no tensor"),
        (lambda s: s["param_groups"][2].update(nesterov=True), "an SGD with nesterov"),
        (lambda s: s["param_groups"][0].update(dampening=0.1), "an SGD with dampening"),
        (lambda s: s["param_groups"][0].pop("momentum"), "not the state of a torch optimiser"),
        (lambda s: s["param_groups"][0].update(params=[[], {}]), "not the state of a torch opt"),
        (lambda s: s.pop("state"), "not the state of a torch optimiser"),
        (lambda s: s.update(state=3), "not the state of a torch optimiser"),
        (lambda s: s.update(param_groups=[3]), "not the state of a torch optimiser"),
    ],
)
def test_what_does_not_fit_is_refused(opt, change, message):
    state = {
        "state": {n: dict(entry) for n, entry in opt[0]["state"].items()},
        "param_groups": copy.deepcopy(opt[0]["param_groups"]),
    }
    change(state)
    with pytest.raises(UserError, match=message):
        buffers(ARCH, SHAPES, state)


def test_another_network_is_refused(opt):
    with pytest.raises(UserError, match="it belongs to another network"):
        buffers("fcn_vgg16_bn", entries("fcn_vgg16_bn", 19), opt[0])
