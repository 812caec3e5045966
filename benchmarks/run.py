"""Races our step, or prediction, against plain PyTorch's and engines' on this machine.

python benchmarks/run.py --task step --size 128 256
python benchmarks/run.py --task predict
python benchmarks/run.py --task predict --sides eager openvino onnxruntime
python benchmarks/run.py --device gpu --dtype bfloat16

Each side has its own process, which stays warm; on a CPU they take turns, so that what else the
machine does meets all of them, on a GPU one follows the other, since its memory may not hold all.
PyTorch's sides (eager, tuned) need the [torch] extra, on a GPU the [cuda] extra, too. openvino and
onnxruntime predict with the ONNX file that dasac_jax.export writes of the same weights,
onnxruntime-torch with the one that PyTorch's exporter writes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import engines, report, sides, trace_kernels  # noqa: E402
from benchmarks.problem import Problem  # noqa: E402

NETWORKS = (
    "deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn", "deeplabv2_demo",
    "deeplabv2_small",
    "dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14", "dinov2_demo",
)  # fmt: skip


class Side:
    """A worker process and what it answered."""

    def __init__(self, name: str, task: Problem, folder: Path):
        self.name = name
        self.turns: list[dict[str, float]] = []
        self.process = subprocess.Popen(
            [*_module("worker"), name, json.dumps(task.as_dict()), str(folder)],
            cwd=ROOT,
            env=_environment(task),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: str) -> Any:
        """Give an order and wait for its answer. Exits where the side has died."""
        try:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"error: side {self.name} ended at {order!r}; its own words stand above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}"]


def _environment(task: Problem) -> dict[str, str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cuda" if task.device == "gpu" else "cpu",
        # Compiling is measured, so nothing may come from a cache.
        "JAX_COMPILATION_CACHE_DIR": "",
        # Otherwise JAX takes most of the GPU's memory, and PyTorch's side has none.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # Or importing OpenVINO starts a process that tells its makers.
        "CI": "true",
    }
    return environment | ({"CUDA_VISIBLE_DEVICES": ""} if task.device == "cpu" else {})


def write_networks(task: Problem, names: Sequence[str], folder: Path) -> None:
    """Write the ONNX files that the sides `names` load. Exits where that fails."""
    writers = sorted({engines.LOADERS[name][0] for name in names if name in engines.LOADERS})
    if writers:
        command = [*_module("onnx_files"), json.dumps(task.as_dict()), str(folder), *writers]
        # Standard output, where the exporters print, is the table's.
        ended = subprocess.run(command, cwd=ROOT, env=_environment(task), stdout=2, check=False)
        if ended.returncode:
            sys.exit("error: the network's ONNX file could not be written; see above")


def race(
    task: Problem,
    names: Sequence[str],
    repeats: int,
    folder: Path,
    profile: Path | None = None,
) -> dict[str, Any]:
    """All that was measured, for the table and the JSON file; with the kernels of our side's trace.

    folder: has the engines' networks, and gets each side's label map. profile: where that trace is
    to be written.
    """
    racers = [Side(name, task, folder) for name in names]
    first, facts, limits, profiled = {}, {}, {}, {}
    for together in [[side] for side in racers] if task.device == "gpu" else [racers]:
        for side in together:
            first[side.name] = side.ask("go")["seconds"]
        for side in together:
            side.ask("go")  # warm
        for _ in range(repeats):
            for side in together:
                side.turns.append(side.ask("go"))
        for side in together:
            facts[side.name] = side.ask("facts")
            limits[side.name] = side.ask("ceilings")
            if profile and side.name == "ours":
                profiled = {"profile": _profiled(side, profile)}
            side.close()
    operations = facts["ours"].pop("operations")
    ceiling = {
        kind: max(limit[kind] for limit in limits.values() if limit) for kind in limits["ours"]
    }
    medians = {side.name: _medians(side.turns) for side in racers}

    def result(side: Side) -> dict[str, Any]:
        median = medians[side.name]
        return {
            "turns": side.turns,
            "median": median,
            "images_per_second": task.images / median["seconds"],
            "ratio": {kind: median[kind] / medians["ours"][kind] for kind in median},
            "of_limit": operations["by_hand"] / median["seconds"] / ceiling["product"],
            "compile_seconds": max(0.0, first[side.name] - median["seconds"]) * task.inner,
            "ceilings": limits[side.name],
            **_agreement(side.name, folder),
            **facts[side.name],
        }

    return {
        "problem": task.as_dict(),
        "machine": report.machine(task, sides.packages(names)),
        "operations": operations,
        "ceilings": ceiling,
        "sides": {side.name: result(side) for side in racers},
        **profiled,
    }


def _profiled(side: Side, path: Path) -> dict[str, Any]:
    """Our side's trace, and the kernels in it that took longest."""
    told = side.ask(f"profile {path.resolve()}")
    return told | ({"kernels": trace_kernels.longest(path)} if "trace" in told else {})


def _agreement(name: str, folder: Path) -> dict[str, float]:
    """The share of the pixels that a side gives the same label as ours; nothing for a step."""
    if not (folder / "ours.npy").exists():
        return {}
    theirs, ours = (np.load(folder / f"{side}.npy") for side in (name, "ours"))
    return {"same_labels": float((theirs == ours).mean())}


def _medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {kind: statistics.median(turn[kind] for turn in turns) for kind in turns[0]}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", choices=("step", "predict"), default="step")
    add("--network", choices=NETWORKS, default=NETWORKS[0])
    add("--size", nargs=2, type=int, metavar=("H", "W"),
        help="crop or image; by default as published on a GPU, smaller crops on a CPU")  # fmt: skip
    add("--source", type=int, help="source images of a step (2 on a CPU, 8 on a GPU)")
    add("--groups", type=int, help="target images of a step, 4 views each (1, 2)")
    add("--dtype", choices=("float32", "tf32", "bfloat16"), default="float32")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--sides", nargs="+", choices=sides.SIDES, default=["eager"], metavar="SIDE",
        help=f"whom to race: {', '.join(sides.SIDES)} (eager)")  # fmt: skip
    add("--remat", action="store_true", help="our side: see docs/memory.md")
    add("--accumulate", type=int, default=1, metavar="N", help="our side: see there")
    add("--repeats", type=int, default=5, help="turns of each side (%(default)s)")
    add("--inner", type=int, help="steps a turn (1, on a GPU 10)")
    add("--profile", type=Path, metavar="FILE",
        help="also trace some of our steps, into a file *.trace.json.gz")  # fmt: skip
    add("--json", type=Path, help="by default under runs/benchmarks")
    return parser.parse_args(argv)


def problem_of(flags: argparse.Namespace) -> Problem:
    """What the flags say, with the device's defaults."""
    gpu = flags.device == "gpu"
    size = (1024, 2048) if flags.task == "predict" else (512, 1024) if gpu else (128, 256)
    height, width = flags.size or size
    return Problem(
        task=flags.task,
        network=flags.network,
        height=height,
        width=width,
        source=flags.source or (8 if gpu else 2),
        groups=flags.groups or (2 if gpu else 1),
        dtype=flags.dtype,
        device=flags.device,
        inner=flags.inner or (10 if gpu else 1),
        remat=flags.remat,
        accumulate=flags.accumulate,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Race, print the table, write the JSON file."""
    flags = parse(argv)
    sides.check(flags)
    task, names = problem_of(flags), ["ours", *dict.fromkeys(flags.sides)]
    with tempfile.TemporaryDirectory() as folder:
        write_networks(task, names, Path(folder))
        result = race(task, names, flags.repeats, Path(folder), flags.profile)
    name = f"{task.task}-{task.network}-{task.height}x{task.width}-{task.dtype}-{task.device}"
    name += "-remat" * task.remat + f"-accumulate{task.accumulate}" * (task.accumulate > 1)
    path = flags.json or ROOT / "runs" / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report.show(result)
    print(f"also in {path}")


if __name__ == "__main__":
    main()
