"""Networks of other repositories are told by their numbers, made equal ones of ours, or refused."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dasac_jax import models
from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.interop.contents import recognise
from dasac_jax.interop.names import variables_from_state_dict

OTHERS = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parent / "files" / "foreign_networks.py"))
)
DEMO = OTHERS.DEMO
# Grey levels, in the order BGR, that the zeros of normalised colours are away from the mean.
BETWEEN_MEANS = 255 * np.array([0.406, 0.456, 0.485]) - OTHERS.BGR_MEAN


@pytest.fixture(scope="module")
def made():
    """made(**options): a file's state_dict, made once; changes go into copies."""
    known = {}

    def get(**options):
        key = tuple(sorted(options.items(), key=str))
        if key not in known:
            known[key] = OTHERS.state_dict(**options)
        return known[key]

    return get


def ours(found, images):
    """(B, C, h', w') logits of a recognised network of images (B, h, w, 3) uint8 RGB."""
    variables = variables_from_state_dict(DEMO, found.student)
    return np.asarray(_apply()(variables, normalise(images))).transpose(0, 3, 1, 2)


@functools.cache
def _apply():
    return jax.jit(models.create_model(DEMO, OTHERS.CLASSES).apply)


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("branches", "early_head"), [(4, False), (2, False), (2, True)], ids=["all", "two", "two heads"]
)
def test_the_converted_network_predicts_what_pytorch_predicts(torch, made, branches, early_head):
    theirs = made(branches=branches, early_head=early_head)
    images = OTHERS.photographs(2, (65, 97), seed=1)
    found = recognise(theirs)
    logits = ours(found, images)
    options = {"branches": branches, "head": "layer6" if early_head else "layer5"}
    exact = OTHERS.logits(
        torch, theirs, OTHERS.levels(images), **options, around=BETWEEN_MEANS
    )  # fmt: skip
    assert relative(logits, exact) < 5e-6
    # As it was trained, with zeros around: levels that differ by 1 in three rows of pixels.
    padded = OTHERS.logits(torch, theirs, OTHERS.levels(images), **options)
    assert 5e-6 < relative(logits, padded) < 1e-2
    assert np.mean(logits.argmax(1) == padded.argmax(1)) > 0.98


@pytest.mark.torch
def test_what_takes_normalised_colours_stays_as_it_is(torch, made):
    theirs = made(takes=OTHERS.normalised)
    images = OTHERS.photographs(2, (65, 97), seed=2)
    found = recognise(theirs)
    expected = OTHERS.logits(torch, theirs, OTHERS.normalised(images))
    assert relative(ours(found, images), expected) < 5e-6
    np.testing.assert_array_equal(found.student["model.conv1.weight"], theirs["conv1.weight"])


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net."])
def test_what_was_changed_is_told(made, prefix):
    found = recognise({prefix + name: x for name, x in made(branches=2).items()})
    assert (found.arch, found.kind) == (DEMO, "weights")
    text = " ".join(found.notes)
    assert "branches 2 and 3 of the head were never trained" in text
    assert "BGR levels minus Caffe's mean" in text
    assert not found.student["model.layer5.conv2d_list.3.weight"].any()


def test_the_head_for_training_only_is_dropped(made):
    theirs = made(early_head=True)
    found = recognise(theirs)
    assert set(found.dropped) == {name for name in theirs if name.startswith("layer5.")}
    np.testing.assert_array_equal(
        found.student["model.layer5.conv2d_list.0.bias"], theirs["layer6.conv2d_list.0.bias"]
    )


def test_imagenet_weights_for_levels_are_brought_into_our_terms(made):
    body = {name: x for name, x in made().items() if not name.startswith("layer5.")}
    found = recognise(body)
    assert found.kind == "imagenet" and "BGR levels minus Caffe's mean" in found.notes[0]
    ours_body = {
        name: x
        for name, x in made(takes=OTHERS.normalised).items()
        if not name.startswith("layer5.")
    }
    assert recognise(ours_body).notes == ()


def changed(arrays, **values):
    return arrays | {name.replace("__", "."): value for name, value in values.items()}


def untrained(arrays):
    """As random networks are: the first running variance says nothing."""
    return changed(arrays, bn1__running_var=np.ones(16, np.float32))


def between(arrays):
    return changed(arrays, bn1__running_var=arrays["bn1.running_var"] * np.float32(0.02))


def untrained_head(arrays):
    scaled = {name: x / np.float32(1.3) for name, x in arrays.items() if "conv2d_list" in name}
    return arrays | {name: x for name, x in scaled.items() if name.endswith("weight")}


def once_two_branches(arrays):
    """Trained on with two branches after all four had been in use."""
    name = "layer5.conv2d_list.0.bias"
    return arrays | {name: arrays[name] + np.float32(0.2)}


def merged_norms(arrays):
    body = {name: x for name, x in arrays.items() if not name.startswith("layer5.")}
    return changed(
        body,
        bn1__running_var=np.ones(16, np.float32),
        bn1__running_mean=np.zeros(16, np.float32),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (untrained, "running variance is constant, which does not tell what it takes"),
        (between, r"running variance fits inputs of strength [\d.]+, which does not"),
        (untrained_head, "some of which sum two of the four branches of the head"),
        (once_two_branches, "some of which sum two of the four branches of the head"),
        (merged_norms, "the norms were merged into factors, as Caffe2 and Detectron do"),
    ],
)
def test_what_the_numbers_do_not_tell_is_refused(made, change, message):
    with pytest.raises(UserError, match=message) as caught:
        recognise(change(made()))
    assert "\n" not in str(caught.value)


def test_a_teacher_and_momentum_do_not_fit_changed_weights(made):
    network = {f"model.{name}": x for name, x in made().items()}
    snapshot = {
        **{f"backbone.{name}": x for name, x in network.items()},
        **{f"slow_net.{name}": x for name, x in network.items()},
        "running_conf": np.full(19, 0.1, np.float32),
        "slow_init": np.ones(1, np.float32),
    }
    with pytest.raises(UserError, match="not with a teacher or momentum: save the state_dict"):
        recognise(snapshot)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("base.aspp.c0.weight", "DeepLabv2 of kazuto1011/deeplab-pytorch"),
        ("classifier.0.convs.0.0.weight", "torchvision's DeepLabv3"),
        ("decode_head.conv_seg.weight", "a network of MMSegmentation"),
        ("layer5.conv2d_list.0.0.weight", "DeepLabv2 of ProDA"),
        ("decoder.last_conv.0.weight", "DeepLabv3+"),
    ],
)
def test_other_families_are_named(made, entry, what):
    body = {f"backbone.{name}": x for name, x in made().items() if "layer5" not in name}
    with pytest.raises(UserError) as caught:
        recognise({"state_dict": body | {entry: np.zeros((4, 4, 1, 1), np.float32)}, "iter": 3})
    assert what in str(caught.value) and entry in str(caught.value)
