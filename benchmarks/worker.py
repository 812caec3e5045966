"""One side of a race, in a process of its own: computes when told to, and tells how long it took.

A line on standard input is an order (`go`, `ceilings`, `facts`; of our side `profile PATH`), a JSON
line on standard output the answer. `run.py` starts it: python -m benchmarks.worker SIDE
PROBLEM-AS-JSON FOLDER

In the folder are the engines' networks; label maps are put there.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import engines
from benchmarks.problem import Problem
from dasac_jax.runtime import malloc

_CEILING_REPEATS = 7


def main(side: str, task: Problem, folder: Path) -> None:
    """Answer orders until standard input ends."""
    if side == "ours":
        malloc.prepare()  # as the commands do
    # What the libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, make = _module(side, task, folder)
    run, last = None, {}

    def go():
        nonlocal run, last
        run = run or make(task)
        started, worked = time.monotonic(), time.process_time()
        for _ in range(task.inner):
            values = run()
        last = module.settle(values)
        return {
            "seconds": (time.monotonic() - started) / task.inner,
            "cpu_seconds": (time.process_time() - worked) / task.inner,
        }

    orders: dict[str, Callable[..., Any]] = {
        "go": go,
        "ceilings": lambda: _ceilings(module, task),
        "facts": lambda: _facts(side, module, task, last, folder),
    }
    if side == "ours":
        orders["profile"] = lambda path: module.profile(run, path)
    for line in sys.stdin:
        order, *details = line.strip().split(" ", 1)
        print(json.dumps(orders[order](*details)), file=answers, flush=True)


def _module(side: str, task: Problem, folder: Path) -> tuple[Any, Callable[[Problem], Any]]:
    """The side's module, and its `make`."""
    if side == "ours":
        from benchmarks import ours

        return ours, ours.make
    if side in engines.LOADERS:
        writer, load = engines.LOADERS[side]
        return engines, partial(engines.make, path=folder / f"{writer}.onnx", load=load)
    from benchmarks import theirs

    return theirs, partial(theirs.make, tuned=side == "tuned")


def _ceilings(module, task) -> dict[str, float]:
    """The most per second of several tries: what the machine can do at best."""
    found = {}
    for name, (amount, function) in module.ceilings(task).items():
        function()
        seconds = []
        for _ in range(_CEILING_REPEATS):
            started = time.monotonic()
            function()
            seconds.append(time.monotonic() - started)
        found[name] = amount / min(seconds)
    return found


def _facts(side, module, task, last, folder) -> dict[str, Any]:
    """Peak memory and what was computed; on our side also the operations."""
    facts = {
        "peak_bytes": module.peak_device_bytes() or _peak_bytes(),
        "values": {name: _summary(value) for name, value in last.items()},
    }
    if "labels" in last:
        np.save(folder / f"{side}.npy", last["labels"].astype(np.uint8))
    if side == "ours":
        facts["operations"] = module.operations(task)
    return facts


def _peak_bytes() -> int:
    """The most memory that this process has had at a time."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # `getrusage` would give the peak of the process that started this one, where that is higher.
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _summary(value: np.ndarray) -> float | list[int]:
    """A loss as it is; of a label map how many pixels each class has."""
    if value.ndim == 0:
        return float(value)
    return np.bincount(value.astype(np.int64).ravel(), minlength=19).tolist()


if __name__ == "__main__":
    main(sys.argv[1], Problem(**json.loads(sys.argv[2])), Path(sys.argv[3]))
