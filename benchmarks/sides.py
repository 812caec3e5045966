"""The sides of a race beside ours: what they need, and what they can be raced in."""

import argparse
import importlib.util
from collections.abc import Sequence

from benchmarks import engines
from benchmarks.refusal import refuse

# The packages of each side, and how they are installed.
_TORCH = {"torch": "-e '.[torch]'"}
_ONNXRUNTIME = {"onnxruntime": "onnxruntime", "onnx": "-e '.[export]'"}
_NEEDS = {
    "eager": _TORCH,
    "tuned": _TORCH,
    "openvino": {"openvino": "openvino", "onnx": "-e '.[export]'"},
    "onnxruntime": _ONNXRUNTIME,
    "onnxruntime-torch": {**_TORCH, **_ONNXRUNTIME, "onnxscript": "onnxscript"},
}
SIDES = tuple(_NEEDS)


def packages(names: Sequence[str]) -> list[str]:
    """The packages of others that these sides, and ours, compute with."""
    return ["jax", *dict.fromkeys(p for name in names for p in _NEEDS.get(name, {}))]


def check(flags: argparse.Namespace) -> None:
    """End with one line and code 2 where something is missing, or cannot be raced."""
    for side in flags.sides:
        missing = {p: how for p, how in _NEEDS[side].items() if not importlib.util.find_spec(p)}
        if missing:
            needed, how = " and ".join(missing), " ".join(missing.values())
            refuse(f"--sides {side} needs {needed}: pip install {how}")
        if side in engines.LOADERS:
            for name, needed in (("task", "predict"), ("device", "cpu"), ("dtype", "float32")):
                if getattr(flags, name) != needed:
                    refuse(f"--sides {side} needs --{name} {needed}")
        dinov2 = flags.network.startswith("dinov2") and "torch" in _NEEDS[side]
        if dinov2 and not importlib.util.find_spec("transformers"):
            refuse("the race with DINOv2 needs transformers: pip install -e '.[torch]'")
    if flags.dtype == "tf32" and flags.device == "cpu":
        refuse("--dtype tf32 is a GPU's; on a CPU there are float32 and bfloat16")
