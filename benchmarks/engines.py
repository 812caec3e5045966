"""The engines' side: OpenVINO or onnxruntime, which predict with an ONNX file of the network."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import problem
from benchmarks.problem import Problem


def make(task: Problem, path: Path, load: Callable[[Path], Any]) -> Callable[[], dict[str, Any]]:
    """A function that predicts the problem's image once. load: one of `LOADERS`."""
    images, predict = problem.image(task), None

    def run():
        nonlocal predict
        # In the first call, as JAX compiles in its first one: both are measured there.
        predict = predict or load(path)
        return {"labels": predict(images)}

    return run


def openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file in OpenVINO, in float32 and with as many threads as JAX has."""
    import openvino

    # By default it computes with bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: compiled({"images": images})["labels"]


def onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file in onnxruntime, with as many threads as JAX has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["labels"], {"images": images})[0]


# By the names of sides: who wrote the file, and what loads it.
LOADERS = {
    "openvino": ("ours", openvino),
    "onnxruntime": ("ours", onnxruntime),
    "onnxruntime-torch": ("torch", onnxruntime),
}


def threads() -> int:
    """The cores that this process may use: JAX starts as many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ceilings(task: Problem) -> dict[str, Any]:
    """None: the engines have no matrix product of their own to call."""
    del task
    return {}


def peak_device_bytes() -> None:
    """None: they compute on the CPU."""


def settle(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values, which are there already."""
    return values
