"""Networks are found in what other programs save around them, and what is left out is told."""

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.contents import recognise
from dasac_jax.interop.names import entries

DEMO = "deeplabv2_demo"


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in entries(DEMO, 19).items()}


def under(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def assert_found(loaded, network):
    found = recognise(loaded)
    assert (found.arch, found.kind, found.epoch) == (DEMO, "weights", None)
    for name, array in network.items():
        np.testing.assert_array_equal(found.student[name], array, err_msg=name)
    return found.notes


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module.", "net.",
     "student.", "model.", "segmentor.net.", "backbone._orig_mod."],
)  # fmt: skip
def test_names_that_wrappers_begin_with(network, prefix):
    assert assert_found(under(prefix, network), network) == ()


def test_wrappers_within_the_names(network):
    inner = {name.replace("model.layer1.", "model.layer1._orig_mod."): x for name, x in
             network.items()}  # fmt: skip
    assert assert_found(inner, network) == ()


def test_averaged_weights(network):
    averaged = {"n_averaged": np.asarray(5), **under("module.", network)}
    assert assert_found(averaged, network) == ()
    assert assert_found({"model_state_dict": averaged, "epoch": 3}, network)


@pytest.mark.parametrize("key", ["model_state_dict", "net", "network", "state_dict", "weights"])
def test_keys_around_it_and_further_ones(network, key):
    beside = {"arch": "x", "epoch": 3, "best_acc1": np.float64(0.5), "optimizer": {"state": {}}}
    (note,) = assert_found({key: network, **beside}, network)
    assert note == (
        "4 are left out: 'arch', 'epoch', 'best_acc1', 'optimizer' "
        f"(beside {key!r}, which is taken)"
    )


def test_dictionaries_in_one_another(network):
    loaded = {"nets": {"segmentor": {"model_state": network}}, "iter": 7}
    (note,) = assert_found(loaded, network)
    assert "'iter'" in note and "'nets.segmentor.model_state'" in note


def test_values_among_the_entries(network):
    (note,) = assert_found({**network, "epoch": 3, "args": None}, network)
    assert note == "2 are left out: 'epoch', 'args' (no tensors)"


def test_an_average_beside_the_network_is_left_out(network):
    other = {name: x + 1 for name, x in network.items()}
    for key, average in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        (note,) = assert_found({average: other, key: network}, network)
        assert f"'{average}'" in note


@pytest.mark.parametrize(
    "loaded",
    [
        lambda network: under("student.", network) | under("teacher.", network),
        lambda network: {"generator": network, "segmentor": network},
        lambda network: {"state": {"a": network, "b": network}},
    ],
)
def test_of_several_networks_none_is_guessed(network, loaded):
    with pytest.raises(UserError, match=r"it holds 2 networks, .*: save one of them alone"):
        recognise(loaded(network))


def test_two_names_for_one_entry(network):
    loaded = under("module.", network) | {"model.bn1.bias": network["model.bn1.bias"]}
    with pytest.raises(UserError, match=r"it holds model\.bn1\.bias twice"):
        recognise(loaded)


class TestNotFinite:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_tensors_are_named_with_how_many_numbers(self, network, value):
        kernel = network["model.conv1.weight"].copy()
        kernel[0, 0, 0, :2] = value
        with pytest.raises(UserError, match=r"1 is not finite: model\.conv1\.weight \(2 of \d+ n"):
            recognise({**network, "model.conv1.weight": kernel})

    def test_what_overflows_in_float32(self, network):
        large = {"model.bn1.bias": np.full(16, 1e300)}
        with (
            pytest.raises(UserError, match=r"not finite: model\.bn1\.bias \(16 of 16"),
            np.errstate(all="raise"),
        ):
            recognise(network | large)

    def test_negative_variances(self, network):
        with pytest.raises(UserError, match=r"model\.bn1\.running_var \(a variance below 0\)"):
            recognise(network | {"model.bn1.running_var": np.full(16, -1e-3, np.float32)})

    def test_the_teacher_and_the_class_prior(self, network):
        broken = network | {"model.bn1.bias": np.full(16, np.nan, np.float32)}
        loaded = {
            **under("backbone.", network),
            **under("slow_net.", broken),
            "running_conf": np.full(19, np.nan, np.float32),
            "slow_init": np.ones(1, np.float32),
        }
        with pytest.raises(
            UserError, match=r"2 are .*: slow_net\.model\.bn1\.bias .*, running_conf:"
        ):
            recognise(loaded)
