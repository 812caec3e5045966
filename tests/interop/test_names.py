"""PyTorch's names of all entries of the three networks, and back."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dasac_jax.errors import UserError
from dasac_jax.interop import state_dict_from_variables, variables_from_state_dict
from dasac_jax.interop.names import entries as package_entries
from dasac_jax.interop.names import flax_path, is_new, torch_name
from dasac_jax.models import create_model

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = pytest.mark.parametrize(
    "arch", ["deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn"]
)


def entries(arch):
    """{name: shape} of the authors' network."""
    shapes = json.loads((GOLDEN / f"state_dict_{arch}.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


@NETWORKS
def test_names_and_shapes_are_those_of_the_network(arch):
    shapes = entries(arch)
    model, images = create_model(arch), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    ours = {
        (collection, path): leaf.shape
        for collection, tree in variables.items()
        for path, leaf in flatten_dict(tree).items()
    }
    theirs = {}
    for name, shape in shapes.items():
        if not name.endswith("num_batches_tracked"):
            hwio = shape[2:] + shape[1::-1] if len(shape) == 4 else shape
            theirs[flax_path(arch, name, len(shape))] = hwio
            assert torch_name(arch, flax_path(arch, name, len(shape))[1]) == name
    assert ours == theirs


@NETWORKS
def test_entries_stand_in_the_order_of_the_network(arch):
    theirs = {n: s for n, s in entries(arch).items() if not n.endswith("num_batches_tracked")}
    assert list(package_entries(arch, 19).items()) == list(theirs.items())


def test_new_layers():
    names = {
        name for name, shape in package_entries("deeplabv2_vgg16_bn", 19).items()
        if is_new("deeplabv2_vgg16_bn", name, len(shape))
    }  # fmt: skip
    layers = ["features.42", "features.44", *(f"classifier.conv2d_list.{i}" for i in range(4))]
    assert names == {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}


def test_there_and_back():
    arch = "deeplabv2_vgg16_bn"
    rng = np.random.default_rng(0)
    # Cut down to two channels each, so that the arrays stay small.
    state_dict = {
        name: np.zeros((), np.int64)
        if name.endswith("num_batches_tracked")
        else rng.normal(size=tuple(min(n, 2 + i) for i, n in enumerate(shape)))
        for name, shape in entries(arch).items()
    }
    variables = variables_from_state_dict(arch, state_dict)
    back = state_dict_from_variables(arch, variables)
    assert list(back) == list(state_dict)
    for name, array in state_dict.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("arch", "name", "ndim", "expected"),
    [
        ("deeplabv2_resnet101", "model.layer1.0.bn1.weight", 1, "params/layer1/0/bn1/scale"),
        ("deeplabv2_demo", "model.layer3.1.conv2.weight", 4, "params/layer3/1/conv2/kernel"),
        ("deeplabv2_resnet101", "model.layer5.conv2d_list.2.bias", 1, "params/layer5/2/bias"),
        ("deeplabv2_vgg16_bn", "classifier.conv2d_list.0.weight", 4, "params/classifier/0/kernel"),
        ("fcn_vgg16_bn", "vgg_head.5.running_var", 1, "batch_stats/vgg_head/5/var"),
        ("fcn_vgg16_bn", "block1.0.weight", 4, "params/block1/0/kernel"),
    ],
)
def test_examples(arch, name, ndim, expected):
    collection, path = flax_path(arch, name, ndim)
    assert "/".join([collection, *path]) == expected


def test_kernels_turn_from_oihw_to_hwio():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    variables = variables_from_state_dict("fcn_vgg16_bn", {"block1.0.weight": kernel})
    ours = variables["params"]["block1"]["0"]["kernel"]
    assert ours.shape == (4, 5, 3, 2)
    assert ours[3, 1, 2, 0] == kernel[0, 2, 3, 1]


def test_unknown_leaf():
    with pytest.raises(UserError, match=r"'model\.conv1\.gamma': not a weight"):
        flax_path("deeplabv2_resnet101", "model.conv1.gamma", 1)
