"""Files are recognised by what they hold, and every entry is accounted for or refused."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.contents import recognise

SNAPSHOTS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("snapshots.py"))))
ARCH = "deeplabv2_vgg16_bn"
RESNET = "deeplabv2_resnet101"
NETWORKS = pytest.mark.parametrize("arch", SNAPSHOTS.NETWORKS)


@pytest.fixture(scope="module")
def shared():
    """shared(kind, arch): a loaded file, made once; changes go into copies."""
    made = {}

    def get(kind, arch=ARCH):
        if (kind, arch) not in made:
            made[kind, arch] = getattr(SNAPSHOTS, kind)(arch)
        return made[kind, arch]

    yield get
    made.clear()


def with_model(snapshot, **changes):
    """A snapshot with entries changed, or left out where None; dots are written __."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    model = {**snapshot["model"], **changes}
    return {**snapshot, "model": {k: v for k, v in model.items() if v is not None}}


def without_counters(arrays):
    return {n: x for n, x in arrays.items() if not n.endswith("num_batches_tracked")}


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_a_network_alone_under_any_prefix(shared, wrapper, prefix):
    theirs = shared("state_dict")
    loaded = SNAPSHOTS.prefixed(prefix, theirs)
    found = recognise({wrapper: loaded} if wrapper else loaded)
    assert (found.arch, found.kind, found.num_classes) == (ARCH, "weights", 19)
    assert_same(found.student, without_counters(theirs))
    assert (found.teacher, found.momentum, found.epoch, found.missing) == (None, None, None, ())
    assert set(found.counters["student"].values()) == {5}


@NETWORKS
def test_each_network_is_told_by_its_entries(arch):
    empty = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in without_counters(SNAPSHOTS.shapes(arch)).items()
    }
    found = recognise(empty)
    assert found.arch == arch and list(found.student) == list(empty)


def test_arrays_stay_those_of_the_file(shared):
    theirs = shared("final")
    found = recognise(theirs)
    name = "features.0.weight"
    assert np.shares_memory(found.student[name], theirs["model"][f"module.backbone.{name}"])
    assert np.shares_memory(found.teacher[name], theirs["model"][f"module.slow_net.{name}"])
    buffer = theirs["opt"]["state"][0]["momentum_buffer"]
    assert np.shares_memory(found.momentum[name], buffer)


def test_a_baseline(shared):
    theirs = shared("baseline")
    found = recognise(theirs)
    assert (found.kind, found.epoch, found.score) == ("baseline", 40, 0.408)
    assert found.teacher is None and found.class_prior is None
    assert_same(found.student, without_counters(SNAPSHOTS.state_dict(ARCH, 1)))
    assert len(found.momentum) == sum(map(len, SNAPSHOTS.groups(ARCH)))
    settings = {"learning_rate": 2.5e-4, "momentum": 0.9, "weight_decay": 5e-4}
    assert found.settings == settings


def test_a_final_snapshot(shared):
    theirs = shared("final")
    found = recognise(theirs)
    assert (found.kind, found.epoch, found.score) == ("final", 136, 0.538)
    assert_same(found.student, without_counters(SNAPSHOTS.state_dict(ARCH, 1)))
    assert_same(found.teacher, without_counters(SNAPSHOTS.state_dict(ARCH, 2)))
    np.testing.assert_array_equal(found.class_prior, theirs["model"]["module.running_conf"])
    assert set(found.counters["student"].values()) == {6}
    assert set(found.counters["teacher"].values()) == {7}
    assert not found.dropped


def test_a_teacher_that_does_not_run_yet_is_dropped(shared):
    found = recognise(with_model(shared("final"), module__slow_init=np.zeros(1, np.float32)))
    assert found.kind == "baseline" and found.teacher is None and found.class_prior is None
    assert len(found.dropped) == 1 + len(found.student)


class TestTorchvision:
    def test_resnet(self, shared):
        found = recognise(shared("torchvision", RESNET))
        assert (found.arch, found.kind, found.num_classes) == (RESNET, "imagenet", 19)
        assert_same(found.student, without_counters(SNAPSHOTS.state_dict(RESNET, new=False)))
        assert list(found.missing) == [n for n in SNAPSHOTS.shapes(RESNET) if "layer5" in n]
        assert list(found.dropped) == ["fc.weight", "fc.bias"]

    @pytest.mark.parametrize("arch", [ARCH, "fcn_vgg16_bn"])
    def test_vgg(self, arch):
        loaded = SNAPSHOTS.torchvision(arch)
        with pytest.raises(UserError, match=f"fits {ARCH} and fcn_vgg16_bn alike: .*--arch"):
            recognise(loaded)
        found = recognise(loaded, arch)
        assert_same(found.student, without_counters(SNAPSHOTS.state_dict(arch, new=False)))
        new = [n for n in without_counters(SNAPSHOTS.shapes(arch)) if SNAPSHOTS.NEW.match(n)]
        assert list(found.missing) == new
        assert len(found.dropped) == 6 and found.kind == "imagenet"

    def test_a_shallower_network_is_refused(self, shared):
        loaded = {
            name: array
            for name, array in shared("torchvision", RESNET).items()
            if not name.startswith(tuple(f"layer3.{i}." for i in range(6, 23)))
        }
        with pytest.raises(UserError, match=r"255 are missing: model\.layer3\.6\.conv1\.weight"):
            recognise(loaded)

    def test_a_deeper_network_is_refused(self, shared):
        extra = {"layer3.23.conv1.weight": np.zeros((256, 1024, 1, 1), np.float32)}
        with pytest.raises(UserError, match=r"1 is unexpected: model\.layer3\.23\.conv1\.weight$"):
            recognise(shared("torchvision", RESNET) | extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"module.backbone.features.0.weight": None},
            f"does not fit {ARCH}: 1 is missing: features.0.weight",
        ),
        (
            {"module.backbone.features.50.weight": np.zeros(3, np.float32)},
            "1 is unexpected: features.50.weight",
        ),
        (
            {"module.backbone.features.0.num_batches_tracked": np.asarray(3)},
            "1 is unexpected: features.0.num_batches_tracked",
        ),
        (
            {"module.backbone.features.1.bias": np.zeros(3, np.float32)},
            "1 is of another shape: features.1.bias (3,) instead of (64,)",
        ),
        (
            {"module.backbone.features.1.bias": np.zeros(64, np.int64)},
            "1 is not floating-point: features.1.bias int64",
        ),
        (
            {"module.backbone.features.1.num_batches_tracked": np.zeros(2)},
            "features.1.num_batches_tracked is float64 (2,), not one whole number",
        ),
        ({"module.slow_net.features.1.bias": None}, "1 is missing: slow_net.features.1.bias"),
        ({"module.extra": np.zeros(3)}, "1 is unexpected: extra"),
        ({"module.running_conf": None}, "running_conf, the class prior, is missing"),
        ({"module.running_conf": np.zeros(7)}, "running_conf is float64 (7,), the head has 19"),
        ({"module.slow_init": None}, "slow_init, which says"),
        ({"module.backbone.features.1.bias": "text"}, "features.1.bias' is a str"),
        (
            {"module.backbone.classifier.conv2d_list.2.bias": None},
            "1 is missing: classifier.conv2d_list.2.bias; --allow-missing makes new heads",
        ),
    ],
)
def test_what_does_not_fit_is_named(shared, change, message):
    with pytest.raises(UserError) as caught:
        recognise(with_model(shared("final"), **change))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_everything_that_does_not_fit_is_counted(shared):
    model = shared("baseline")["model"]
    gone = [name for name in without_counters(model) if ".features.4" in name]
    changes = dict.fromkeys(gone) | {"module.backbone.a": np.zeros(1, np.float32)}
    with pytest.raises(UserError) as caught:
        recognise(with_model(shared("baseline"), **changes))
    assert f"{len(gone)} are missing: features.4.weight" in str(caught.value)
    assert f"and {len(gone) - 10} more; 1 is unexpected: a" in str(caught.value)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ([1, 2], "holds a list, not a network's state_dict"),
        (np.zeros(3), "holds a ndarray"),
        ({}, "it is empty"),
        ({"image.png": {3: 0.5}}, "'image.png' is a dict"),
        ({1: np.zeros(3)}, "1 is a ndarray"),
        ({"a.weight": np.zeros(3), "b.weight": np.zeros(3)}, "no known network fits: it has 2 ent"),
        ({"model": {}, "optimizer": 1}, "it is empty"),
        ({"running_conf": np.zeros(19)}, "no known network fits"),
    ],
)
def test_what_is_no_network_is_refused(loaded, message):
    with pytest.raises(UserError) as caught:
        recognise(loaded)
    assert message in str(caught.value)


def test_another_network_is_refused(shared):
    with pytest.raises(UserError, match=r"fit fcn_vgg16_bn: \d+ are missing.*unexpected"):
        recognise(shared("state_dict"), "fcn_vgg16_bn")
    with pytest.raises(UserError, match="--arch resnet50: choose one of deeplabv2_resnet101"):
        recognise(shared("state_dict"), "resnet50")


def test_a_class_prior_without_a_teacher_is_refused(shared):
    loaded = shared("state_dict") | {"running_conf": np.zeros(19, np.float32)}
    with pytest.raises(UserError, match=r"1 is unexpected: running_conf \(there is no slow_net\)"):
        recognise(loaded)


@pytest.mark.parametrize("value", ["many", np.zeros(2), float("nan"), None])
@pytest.mark.parametrize("key", ["epoch", "score"])
def test_epoch_and_score_are_numbers(shared, key, value):
    with pytest.raises(UserError, match=f"'{key}' is .*, not a number"):
        recognise({**shared("baseline"), key: value})


class TestHeads:
    def test_other_numbers_of_classes(self, shared):
        loaded = {
            name: array[:7] if "classifier" in name else array
            for name, array in shared("state_dict").items()
        }
        assert recognise(loaded).num_classes == 7

    def test_branches_have_to_agree(self, shared):
        loaded = dict(shared("state_dict"))
        loaded["classifier.conv2d_list.3.bias"] = loaded["classifier.conv2d_list.3.bias"][:7]
        with pytest.raises(UserError, match=r"conv2d_list\.3\.bias \(7,\) instead of \(19,\)"):
            recognise(loaded)

    def test_may_be_missing_where_that_is_allowed(self, shared):
        gone = [n for n in shared("state_dict") if n.startswith(("classifier", "features.44"))]
        loaded = {n: x for n, x in shared("state_dict").items() if n not in gone}
        with pytest.raises(
            UserError, match=r"10 are missing: .*; --allow-missing makes new heads$"
        ):
            recognise(loaded)
        found = recognise(loaded, allow_missing=True)
        assert found.missing == tuple(gone) and found.num_classes == 19

    def test_nothing_else_may_be_missing(self, shared):
        loaded = {n: x for n, x in shared("state_dict").items() if n != "features.3.bias"}
        with pytest.raises(UserError, match=r"1 is missing: features\.3\.bias$"):
            recognise(loaded, allow_missing=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_precisions_become_float32(shared, dtype):
    loaded = dict(shared("state_dict"))
    loaded["features.0.bias"] = np.arange(64).astype(dtype)
    found = recognise(loaded).student["features.0.bias"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.arange(64))
