"""What a machine has for gpu_check.py, and what it lacks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.refusal import refuse

OLDEST_JAX = (0, 11)
MODULES = ("absl", "etils", "flax", "msgpack", "optax", "PIL", "rich", "typing_extensions", "yaml")
WHEELS = Path(__file__).parent / "gpu_check_wheels.txt"

# Run in a process of its own, since JAX and PyTorch take memory of a GPU that they have looked at.
_PROBE = """
import importlib.util, json, platform, sys

def words(error):
    return (str(error).strip().splitlines() or [repr(error)])[-1]

found = {"python": platform.python_version()}
found["modules"] = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
try:
    import jax
    found["jax"] = jax.__version__
    found["jax_devices"] = [device.platform for device in jax.devices()]
except Exception as error:
    found["jax_error"] = words(error)
try:
    import torch
    found["torch"] = torch.__version__
    found["torch_cuda"] = torch.version.cuda
    found["torch_gpu"] = torch.cuda.is_available()
except Exception as error:
    found["torch_error"] = words(error)
print(json.dumps(found))
"""


def environment(wheels: Path | None, packages: str) -> dict[str, str]:
    """This process's environment, in which Python finds the wheels' packages, too.

    They are unpacked into the folder `packages`, so that nothing of the machine's own changes.
    Exits with one line where that fails.
    """
    if wheels is None:
        return dict(os.environ)
    if not wheels.is_dir():
        refuse(f"--wheels: {wheels} is no folder")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--find-links", str(wheels), "--target", packages, "-r", str(WHEELS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        refuse(f"--wheels: {' '.join(said[-1:]) or ended.stderr.strip()}")
    paths = [os.environ.get("PYTHONPATH", ""), packages]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def look(environment: Mapping[str, str], rehearsal: bool) -> tuple[dict[str, Any], list[str]]:
    """Versions and the GPU of this machine, for the results; and what it lacks, in words."""
    probe = [sys.executable, "-c", _PROBE, *MODULES]
    ended = subprocess.run(
        probe, env=dict(environment), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        refuse(f"JAX and PyTorch could not be looked at: {ended.stderr.strip()[-200:]}")
    found = json.loads(ended.stdout.splitlines()[-1])
    gpu = None if rehearsal else _gpu()
    lacks = missing(found, gpu is not None, rehearsal)
    return {"gpu": gpu, "cores": os.cpu_count(), **found}, lacks


def _gpu() -> dict[str, str] | None:
    """Name, memory and driver of the first GPU; None without one."""
    fields = ("name", "memory.total", "driver_version")
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode or not ended.stdout.strip():
        return None
    values = ended.stdout.splitlines()[0].split(", ")
    return dict(zip(fields, values, strict=True))


def missing(found: Mapping[str, Any], gpu: bool, rehearsal: bool = False) -> list[str]:
    """What a machine lacks, in words; of a rehearsal nothing that only a GPU needs.

    found: what the probe printed. gpu: whether the machine has one.
    """
    lacks = [] if gpu or rehearsal else ["no NVIDIA GPU (nvidia-smi names none)"]
    if "jax" not in found:
        lacks.append(f"no JAX ({found['jax_error']})")
    elif not rehearsal and _version(found["jax"]) < OLDEST_JAX:
        needed = ".".join(map(str, OLDEST_JAX))
        lacks.append(f"JAX {found['jax']}, which is older than {needed}")
    elif gpu and not {"gpu", "cuda"} & set(found.get("jax_devices", [])):
        why = found.get("jax_error", "its CUDA plugin is not installed")
        lacks.append(f"no GPU that JAX sees ({why})")
    if "torch" not in found:
        lacks.append(f"no PyTorch ({found['torch_error']})")
    elif gpu and not found["torch_gpu"]:
        lacks.append(f"no GPU that PyTorch {found['torch']} sees")
    modules = [name for name in MODULES if name not in found["modules"]]
    if modules:
        lacks.append(f"no Python module {', '.join(modules)} (bring wheels, see docs/gpu_check.md)")
    return lacks


def _version(text: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(number) for number in text.split(".")[:2])
