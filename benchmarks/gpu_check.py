"""Checks and times this package on one NVIDIA GPU: the parts of gpu_check.sh, one after the other.

With --rehearse it does the same on a CPU, with a small network: for its test.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu_machine  # noqa: E402
from benchmarks.refusal import refuse  # noqa: E402

SECONDS = 520  # for all parts; nine minutes with what comes before and after
_NO_TRITON = "--xla_gpu_enable_triton_gemm=false"


class FailedError(Exception):
    """Why a part has no result, in one line."""


@dataclass
class Check:
    """Where results go, what is computed, and what was found."""

    output: Path
    rehearsal: bool
    ends: float  # the reading of the monotonic clock at which all parts have to be done
    machine: dict[str, Any]
    environment: dict[str, str]
    parts: dict[str, Any] = field(default_factory=dict)

    def run(self, command: Sequence[str | Path], ends: float, **environment: str) -> str:
        """What a command prints; what it writes as errors goes to gpu_check.log.

        Raises FailedError where it fails, or is not done when the monotonic clock reads `ends`.
        """
        words = [sys.executable, *map(str, command)]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                words, cwd=ROOT, env=self.environment | environment, stdout=subprocess.PIPE,
                stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
            try:
                printed, _ = process.communicate(timeout=max(1.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.communicate()
                raise FailedError("ran out of its time") from None
            finally:
                errors.seek(0)
                said = errors.read()
                with (self.output / "gpu_check.log").open("a", encoding="utf-8") as log:
                    log.write(f"$ {' '.join(words)}\n{said}")
        if process.returncode:
            last = " ".join(said.strip().splitlines()[-1:])
            raise FailedError(f"ended with code {process.returncode}: {last}")
        return printed


Part = Callable[[Check, float], dict[str, Any]]


def parity(check: Check, ends: float) -> dict[str, Any]:
    """The GPU's forward pass and two steps against the CPU's, in float32."""
    task = {
        "task": "step", "network": "deeplabv2_resnet101", "height": 128, "width": 256,
        "source": 2, "groups": 1, "dtype": "float32", "device": "gpu", "inner": 1,
    }  # fmt: skip
    if check.rehearsal:
        task |= {"network": "deeplabv2_demo", "height": 48, "width": 96}
    devices = {"cpu": "cpu", "gpu": "cpu" if check.rehearsal else "cuda"}

    def side(layers):
        path = check.output / f"parity-{layers}.npz"
        command = ["-m", "benchmarks.gpu_parity", layers, json.dumps(task), path]
        environment = {"JAX_PLATFORMS": devices[layers]}
        if devices[layers] == "cuda":
            # Whether results are right does not hang on which algorithm is fastest.
            environment["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"
        check.run(command, ends, **environment)
        return path

    with ThreadPoolExecutor() as pool:
        paths = dict(zip(devices, pool.map(side, devices), strict=True))
    import numpy as np

    from benchmarks import gpu_parity

    quantities = gpu_parity.compared(np.load(paths["gpu"]), np.load(paths["cpu"]))
    for path in paths.values():
        path.unlink()  # hundreds of megabytes
    passed = all(quantity["passed"] for quantity in quantities.values())
    return {"passed": passed, "problem": task, "quantities": quantities}


def announced(check: Check, ends: float) -> dict[str, Any]:
    """GiB that XLA sets aside for the step compiled for an H100, which needs no GPU."""
    found = {}
    for dtype in ("bfloat16", "tf32"):
        command = ["benchmarks/gpu_program.py", "--dtype", dtype, *_size(check)]
        printed = check.run(command, ends)
        found[dtype] = float(re.match(r"([\d.]+) GiB", printed).group(1))
    return found


def race(
    check: Check, ends: float, name: str, dtype: str, sides: Sequence[str], **environment: str
) -> dict[str, Any]:
    """`run.py` with its JSON as the result; of a step also the kernels that took longest."""
    path = check.output / f"{name}.json"
    if check.rehearsal:
        # A CPU has no TF32, takes minutes for PyTorch's products in bfloat16, and for compiling.
        flags = ["--dtype", "float32", "--repeats", "1"]
    else:
        flags = ["--device", "gpu", "--dtype", dtype, "--repeats", "3", "--sides", *sides]
    if name == "predict":
        flags += ["--task", "predict"]
    else:
        flags += ["--profile", check.output / f"{name}.trace.json.gz"]
    command = ["benchmarks/run.py", *flags, "--json", path, *_size(check)]
    check.run(command, ends, **environment)
    found = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return found


def _race(name: str, dtype: str, *sides: str, **environment: str) -> Part:
    """A part that is one race."""
    return lambda check, ends: race(check, ends, name, dtype, sides, **environment)


def _size(check: Check) -> list[str]:
    """The published step's, which is the default of a GPU; in a rehearsal a small one."""
    if not check.rehearsal:
        return []
    return ["--network", "deeplabv2_demo", "--size", "48", "96"]


# What is run together, in this order, and the share of the time that is left. Last comes the step
# without XLA's own kernels for products: it chooses between them and the library's by timing, and
# only the library's take bias, ReLU and residual sum along.
GROUPS: tuple[tuple[float, dict[str, Part]], ...] = (
    (80, {"parity": parity, "announced": announced}),
    (170, {"race-bfloat16": _race("race-bfloat16", "bfloat16", "eager", "tuned")}),
    (150, {"race-tf32": _race("race-tf32", "tf32", "eager", "tuned")}),
    (50, {"predict": _race("predict", "bfloat16", "eager")}),
    (70, {"no-triton": _race("no-triton", "bfloat16", "eager", XLA_FLAGS=_NO_TRITON)}),
)
PARTS = [name for _, group in GROUPS for name in group]


def run_parts(check: Check, names: Sequence[str], groups: Sequence[tuple[float, dict]]) -> None:
    """Run the named parts and write what is known after each of them.

    A group gets its share of the time that is left, so that what one saves goes to the next ones.
    """
    asked = [(w, {n: part for n, part in group.items() if n in names}) for w, group in groups]
    asked = [(weight, group) for weight, group in asked if group]
    for i, (weight, group) in enumerate(asked):
        left = check.ends - time.monotonic()
        ends = time.monotonic() + left * weight / sum(weight for weight, _ in asked[i:])
        with ThreadPoolExecutor() as pool:
            running = {n: pool.submit(_timed, part, check, ends) for n, part in group.items()}
            for name, future in running.items():
                check.parts[name] = future.result()
                write(check)
                print(f"{name}: {_said(name, check.parts[name])}", flush=True)


def _timed(part: Part, check: Check, ends: float) -> dict[str, Any]:
    """{seconds, result} or {seconds, failed} of a part."""
    started = time.monotonic()
    try:
        found = {"result": part(check, ends)}
    except FailedError as error:
        found = {"failed": str(error)}
    except Exception as error:
        # A mistake in one part must not cost the results of the others.
        found = {"failed": repr(error)}
    return {"seconds": round(time.monotonic() - started, 1), **found}


def _said(name: str, part: dict[str, Any]) -> str:
    """One line of a part, for the terminal."""
    if "failed" in part:
        return f"FAILED after {part['seconds']} s: {part['failed']}"
    result = part["result"]
    if "quantities" in result:
        worst = {
            n: f"{q['difference']:.1e} of {q['bound']:.0e}" for n, q in result["quantities"].items()
        }
        return f"{'passed' if result['passed'] else 'NOT PASSED'}: {worst}"
    if "sides" not in result:
        return json.dumps(result)
    return ", ".join(
        f"{side} {facts['median']['seconds']:.4g} s ({facts['ratio']['seconds']:.2f}× ours)"
        for side, facts in result["sides"].items()
    )


def memory(parts: dict[str, Any]) -> dict[str, Any]:
    """GiB of the step by precision: what XLA announced, and the peak of the device in the race."""
    promised = parts.get("announced", {}).get("result", {})
    found = {}
    for dtype in ("bfloat16", "tf32"):
        sides = parts.get(f"race-{dtype}", {}).get("result", {}).get("sides", {})
        found[dtype] = {
            "announced": promised.get(dtype),
            "measured": {name: side["peak_bytes"] / 2**30 for name, side in sides.items()},
        }
    return found


def write(check: Check) -> None:
    """All results so far, in gpu_check.json."""
    found = {
        "rehearsal": check.rehearsal,
        "machine": check.machine,
        "memory_gib": memory(check.parts),
        "parts": check.parts,
    }
    path = check.output / "gpu_check.json"
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 where all parts have results and the parity holds, else 1; 2 before any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    add("--output", type=Path, default=ROOT / "runs" / "gpu_check", metavar="DIR")
    add("--wheels", type=Path, metavar="DIR", help="take what Python lacks from this folder")
    add("--rehearse", action="store_true", help="a small network, on the CPU")
    flags = parser.parse_args(argv)
    unknown = ", ".join(name for name in flags.parts if name not in PARTS)
    if unknown:
        refuse(f"no part is called {unknown}; there are {', '.join(PARTS)}")
    ends = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as packages:
        environment = gpu_machine.environment(flags.wheels, packages)
        machine, lacks = gpu_machine.look(environment, flags.rehearse)
        if lacks:
            refuse("this machine has " + "; ".join(lacks))
        known = _known(flags.output, machine)
        flags.output.mkdir(parents=True, exist_ok=True)
        output = flags.output.resolve()
        check = Check(output, flags.rehearse, ends, machine, environment, known)
        run_parts(check, flags.parts or PARTS, GROUPS)
    print(f"results in {check.output / 'gpu_check.json'}")
    return 0 if all(_good(check.parts.get(name, {})) for name in flags.parts or PARTS) else 1


def _known(output: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """The parts of an earlier call into the same folder; exits where another machine wrote them."""
    path = output / "gpu_check.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["machine"] != machine:
        refuse(f"--output: {path} has the results of another machine; name another folder")
    return found["parts"]


def _good(part: dict[str, Any]) -> bool:
    return part.get("result", {}).get("passed", "result" in part)


if __name__ == "__main__":
    sys.exit(main())
