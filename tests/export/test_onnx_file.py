"""ONNX files compute what the networks compute, in onnxruntime and in OpenVINO."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from dasac_jax import models
from dasac_jax.errors import UserError
from dasac_jax.export import onnx_file
from dasac_jax.image.normalise import normalise
from dasac_jax.models import fcn

DEMO = "deeplabv2_demo"
ALL = ("labels", "logits", "probabilities")


def serialised(model, variables, size=None, outputs=("logits",), float16=False, metadata=None):
    return onnx_file.serialised(
        model, variables, size=size, outputs=outputs, float16=float16, metadata=metadata or {}
    )


def session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def images(seed, size, count=1):
    """Noise in blocks: pixels alone would be too much alike for a network."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 12, 24, 3), np.uint8)
    return noise.repeat(-(-size[0] // 12), 1).repeat(-(-size[1] // 24), 2)[:, : size[0], : size[1]]


def expected(model, variables, batch):
    """Our logits at the images' size, (B, H, W, C)."""

    def run(variables, batch):
        logits = model.apply(variables, normalise(batch))
        return models.logits_at(model, logits, batch.shape[1:3])

    program = jax.jit(run).lower(variables, batch)
    # Unoptimised: compiling takes longer than running.
    options = {"xla_backend_optimization_level": 0}
    return np.asarray(program.compile(compiler_options=options)(variables, batch))


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.fixture(scope="module")
def demo(draw):
    """The demo's network: module and variables."""
    model = models.create_model(DEMO)
    return model, draw(model)


@pytest.fixture(scope="module")
def everything(demo):
    """The demo's network with all outputs, for images of any size and number: a session."""
    return session(serialised(*demo, outputs=ALL))


def fewer_layers(arch):
    """A network of full width. Layers of which it has many alike are there once or twice."""
    model = models.create_model(arch)
    if hasattr(model, "depth"):
        return model.clone(depth=2)
    return model.clone(blocks=(1, 2, 2, 1)) if hasattr(model, "blocks") else model


@pytest.mark.parametrize("arch", models.ARCHITECTURES)
def test_every_network_has_our_logits(arch, draw, monkeypatch):
    # FCN's head has 134 million weights; so wide it would only take longer.
    monkeypatch.setattr(fcn, "VGGHead", partial(fcn.VGGHead, width=96))
    model = fewer_layers(arch)
    variables = draw(model)
    content = serialised(model, variables)
    weights = sum(value.nbytes for value in jax.tree.leaves(variables))
    assert len(content) <= 1.01 * weights
    batch = images(1, (50, 71))
    (found,) = session(content).run(None, {"images": batch})
    assert relative(found, expected(model, variables, batch)) <= 1e-5


def test_a_layer_that_is_left_out_is_noticed(demo):
    model, variables = demo
    variables = variables | {"params": variables["params"] | {"layer6": {"kernel": np.ones(1)}}}
    with pytest.raises(RuntimeError, match="leaves out params/layer6/kernel"):
        serialised(model, variables)


@pytest.mark.parametrize("size", [(32, 32), (48, 97), (65, 40)])
def test_outputs_agree(demo, everything, size):
    batch = images(2, size, count=2)
    labels, logits, probabilities = everything.run(None, {"images": batch})
    wanted = expected(*demo, batch)
    assert (labels.shape, labels.dtype) == ((2, *size), np.uint8)
    assert (logits.shape, logits.dtype) == ((2, *size, 19), np.float32)
    assert relative(logits, wanted) <= 1e-5
    assert relative(probabilities, np.asarray(jax.nn.softmax(wanted))) <= 1e-5
    assert (labels == wanted.argmax(-1)).mean() >= 0.9999 and len(np.unique(labels)) > 2


def test_a_fixed_size(demo, everything):
    fixed = session(serialised(*demo, size=(48, 64), outputs=ALL))
    assert [x.shape for x in fixed.get_outputs()] == [
        [1, 48, 64], [1, 48, 64, 19], [1, 48, 64, 19]
    ]  # fmt: skip
    batch = images(3, (48, 64))
    for found, wanted in zip(
        fixed.run(None, {"images": batch}), everything.run(None, {"images": batch}), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(Exception, match="Expected: 48"):
        fixed.run(None, {"images": images(3, (64, 64))})


def test_float16(demo, everything):
    content = serialised(*demo, outputs=("labels", "logits"), float16=True)
    assert len(content) < 0.56 * len(serialised(*demo))
    batch = images(4, (64, 96), count=2)
    labels, logits = session(content).run(None, {"images": batch})
    wanted = everything.run(["labels", "logits"], {"images": batch})
    assert logits.dtype == np.float32
    assert (labels == wanted[0]).mean() >= 0.995
    assert 1e-5 < relative(logits, wanted[1]) < 5e-3


def test_a_weight_that_float16_cannot_hold(demo):
    model, variables = demo
    kernel = variables["params"]["layer5"]["0"]["kernel"].copy()
    kernel[1, 1, 2, 3] = 7e4
    head = {**variables["params"]["layer5"], "0": {**variables["params"]["layer5"]["0"]}}
    head["0"]["kernel"] = kernel
    variables = variables | {"params": variables["params"] | {"layer5": head}}
    with pytest.raises(UserError, match=r"layer5/0/kernel .* 70000.*--float16"):
        serialised(model, variables, float16=True)


def test_openvino_agrees(demo, everything):
    core = openvino.Core()
    model = core.read_model(serialised(*demo, outputs=ALL))
    # By default it computes with bfloat16 on processors that have it.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", exact)
    for size in ((33, 64), (64, 96)):
        batch = images(5, size)
        found = compiled({"images": batch})
        labels, logits, probabilities = everything.run(None, {"images": batch})
        assert relative(found["logits"], logits) <= 1e-5
        assert relative(found["probabilities"], probabilities) <= 1e-5
        assert (found["labels"] == labels).mean() >= 0.9999


def test_what_the_file_says_of_itself(demo):
    content = serialised(*demo, outputs=("labels",), metadata={"palette": "[[1, 2, 3]]"})
    proto = onnx.load_from_string(content)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"palette": "[[1, 2, 3]]"}
    assert proto.producer_name == "dasac-jax"
    assert [(x.domain, x.version) for x in proto.opset_import] == [("", 18)]
    # Names are paths in the tree of variables; norms are folded into the convolutions.
    names = {node.output[0]: node.op_type for node in proto.graph.node}
    assert names["layer3/1/conv2"] == "Conv" and "BatchNormalization" not in names.values()
    told = session(content).get_modelmeta().custom_metadata_map
    assert told == {"palette": "[[1, 2, 3]]"}
