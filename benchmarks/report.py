"""What a race found, for the terminal."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import engines
from benchmarks.problem import Problem

_TITLES = {
    "ours": "ours (JAX)",
    "eager": "PyTorch, eager",
    "tuned": "PyTorch, tuned",
    "openvino": "OpenVINO",
    "onnxruntime": "onnxruntime",
    "onnxruntime-torch": "onnxruntime, PyTorch's file",
}


def machine(task: Problem, packages: Sequence[str]) -> dict[str, Any]:
    """The device and the versions that figures are worth nothing without."""
    found = {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "cores": engines.threads(),
        "device": _processor(),
    }
    if task.device == "gpu":
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found["device"] = subprocess.run(
            query, capture_output=True, text=True, check=True
        ).stdout.strip()
    return found


def show(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the table."""
    console = console or Console()
    task, where = result["problem"], result["machine"]
    table = Table(title=_title(task))
    table.add_column("")
    for name in result["sides"]:
        table.add_column(_TITLES[name], justify="right")
    for label, text in _ROWS.items():
        table.add_row(label, *(text(side) for side in result["sides"].values()))
    console.print(table)
    counts, ceiling = result["operations"], result["ceilings"]
    console.print(
        f"{counts['by_hand'] / 1e9:.4g} GFLOP by hand, {counts['by_xla'] / 1e9:.4g} by XLA's "
        f"count; ceilings: product {ceiling['product'] / 1e9:.4g} GFLOP/s, "
        f"copy {ceiling['copy'] / 1e9:.3g} GB/s",
        soft_wrap=True,
    )
    console.print(
        f"{where['device']}, {where['cores']} cores, Python {where['python']}, "
        + ", ".join(f"{name} {number}" for name, number in where["versions"].items()),
        soft_wrap=True,
    )


_ROWS = {
    "seconds (median)": lambda side: f"{side['median']['seconds']:.3g}",
    "fastest, slowest": lambda side: _range(side["turns"]),
    "images/s": lambda side: f"{side['images_per_second']:.3g}",
    "ours is faster by": lambda side: f"{side['ratio']['seconds']:.2f}×",
    # Of a CPU that others use too, these say more than seconds on the clock.
    "CPU seconds (median)": lambda side: f"{side['median']['cpu_seconds']:.3g}",
    "ours takes less CPU by": lambda side: f"{side['ratio']['cpu_seconds']:.2f}×",
    "of the limit": lambda side: f"{100 * side['of_limit']:.0f} %",
    "peak memory (MiB)": lambda side: f"{side['peak_bytes'] / 2**20:.0f}",
    "compiling (s)": lambda side: f"{side['compile_seconds']:.1f}",
    "computed": lambda side: _losses(side["values"]),
    "labels as ours": lambda side: _share(side.get("same_labels")),
}


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3f} %"


def _range(turns: list[dict[str, float]]) -> str:
    seconds = [turn["seconds"] for turn in turns]
    return f"{min(seconds):.3g}, {max(seconds):.3g}"


def _losses(values: dict[str, Any]) -> str:
    """The losses; of a label map its commonest class."""
    return " ".join(
        f"class {np.argmax(value)} most" if isinstance(value, list) else f"{value:.5g}"
        for value in values.values()
    )


def _title(task: dict[str, Any]) -> str:
    what = (
        "prediction of an image"
        if task["task"] == "predict"
        else f"adaptation step, {task['source']} + {task['groups']}×4 images"
    )
    size = f"{task['height']}×{task['width']}"
    return f"{what}, {task['network']}, {size}, {task['dtype']}, {task['device']}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
