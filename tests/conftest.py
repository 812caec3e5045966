"""What every test needs: simulated devices, golden numbers, and PyTorch where it is installed."""

from __future__ import annotations

import atexit
import fcntl
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

# All of this has to stand before jax is first imported; subprocesses of a test inherit it.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Programs that several tests compile are compiled once. The folder belongs to this process and
# its children alone: jax writes cache entries in place, so workers must not share one.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dasac-jax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import numpy as np
import pytest
from ml_collections import ConfigDict

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]

# The built-in demo, so small that a run is compiling and little else.
TINY = {
    "demo.height": 48, "demo.width": 96, "demo.num_source": 16, "demo.num_train": 8,
    "demo.num_val": 5, "demo.num_test": 1, "data.source_size": (48, 96),
    "data.target_size": (48, 96), "data.selection_images": 4, "baseline.crop": (32, 32),
    "baseline.source_batch": 8, "baseline.target_batch": 8, "baseline.learning_rate": 0.001,
    "baseline.epochs": 6, "adapt.crop": (32, 64), "adapt.source_batch": 8, "adapt.groups": 2,
    "adapt.group_size": 4, "adapt.learning_rate": 0.001, "adapt.epochs": 9,
    "adapt.threshold_lower": 0.1, "adapt.teacher_momentum": 0.5, "validate_every_epochs": 2,
    "checkpoint_every_steps": 5, "log_every_steps": 1, "loader_threads": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """A reader of the recorded numbers: golden("warp") gives the arrays of golden/warp.npz."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """The module golden/recipe.py, which makes the inputs that the golden numbers belong to."""
    specification = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch. Where it is missing the test is skipped, or fails if DASAC_REQUIRE_TORCH=1."""
    torch = _of_extra("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def transformers(torch) -> ModuleType:
    """Hugging Face's transformers; where it is missing the same as for PyTorch."""
    return _of_extra("transformers")


@pytest.fixture(scope="module")
def timm(transformers) -> Iterator[ModuleType]:
    """timm without torchvision; where it is missing the same as for PyTorch.

    It imports torchvision for its data, of which nothing is used here. The published torchvision is
    made for PyTorch with CUDA and does not load beside the CPU's, so a stand-in takes its place.
    """
    stand_in = _Torchvision()
    sys.meta_path.insert(0, stand_in)
    try:
        yield _of_extra("timm")
    finally:
        sys.meta_path.remove(stand_in)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes modules called torchvision that have whatever is asked for, and do nothing."""

    def find_spec(self, name, path=None, target=None):
        """A module specification for torchvision and what lies in it, else None."""
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """The stand-in."""
        return mock.MagicMock(__path__=[], __spec__=spec)

    def exec_module(self, module):
        """Nothing is left to do."""


def _of_extra(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("DASAC_REQUIRE_TORCH") == "1":
            pytest.fail(f"DASAC_REQUIRE_TORCH=1, but {error}", pytrace=False)
        pytest.skip(f"install the [torch] extra, and timm for some tests ({error})")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """command(flag, …): `python -m dasac_jax.main` with these flags, as a user runs it.

    Options: hook, what run_hooked.py is to do; devices, how many to simulate; compiled, a folder
    of programs compiled before.
    """

    def run(*flags: str, hook=(), devices: int = 1, compiled: Path | None = None) -> Ended:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            # Unoptimised: compiling takes longer than running.
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            "--xla_backend_optimization_level=0",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if compiled is not None:
            environment["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
        program = (
            [str(ROOT / "tests" / "run_hooked.py"), *hook] if hook else ["-m", "dasac_jax.main"]
        )
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, *program, *flags],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - started
        return Ended(ended.returncode, ended.stdout, ended.stderr, seconds)

    return run


@pytest.fixture(scope="session")
def tiny() -> Callable[..., list[str]]:
    """tiny(folder, **changes): flags of the tiny demo there; keys with __ for the dots."""

    def flags(folder: Path, **changes) -> list[str]:
        values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
        overrides = [f"--config.{key}={value}" for key, value in values.items()]
        return ["--config", "configs/demo.py", "--workdir", str(folder), *overrides]

    return flags


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ConfigDict]:
    """tiny_config(**changes): the configuration that `tiny` gives on the command line."""

    def make(**changes) -> ConfigDict:
        config = runpy.run_path(str(ROOT / "configs" / "demo.py"))["get_config"]()
        config.lock()
        config.update_from_flattened_dict(
            TINY | {key.replace("__", "."): value for key, value in changes.items()}
        )
        return config

    return make


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """small_files(n): from then on no file grows beyond n bytes, as on a full disk; 0: no limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))

    yield limit
    limit(0)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """once(name, make): the folder that make(folder) filled, made by the first worker to ask."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, made = root / name, root / f"{name}.made"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return get


@dataclass(frozen=True)
class WholeRun:
    """The tiny demo, run in one go: its work directory, how it ended, what it compiled."""

    folder: Path
    ended: Ended
    compiled: Path


@pytest.fixture(scope="session")
def whole(command, tiny, once) -> WholeRun:
    """One run of the tiny demo for all tests, which leave it as it is."""

    def make(folder: Path) -> None:
        ended = command(*tiny(folder / "run"), compiled=folder / "compiled")
        (folder / "ended.json").write_text(json.dumps(asdict(ended)), encoding="utf-8")

    folder = once("whole", make)
    ended = Ended(**json.loads((folder / "ended.json").read_text(encoding="utf-8")))
    assert ended.code == 0, ended.err
    return WholeRun(folder / "run", ended, folder / "compiled")


@dataclass(frozen=True)
class UnlabelledRun:
    """A run on data whose target training images have no labels, and the keys that it read."""

    folder: Path
    ended: Ended
    keys: set[str]


@pytest.fixture(scope="session")
def unlabelled(whole, command, tiny, once) -> UnlabelledRun:
    """The tiny demo's run on its data without target training labels, as a recipe of its own."""

    def make(folder: Path) -> None:
        shutil.copytree(whole.folder / "data", folder / "data")
        for labels in ("gtFine", "gtFine2"):
            shutil.rmtree(folder / "data" / "cityscapes" / labels / "train")
        recipe = folder / "recipe.py"
        recipe.write_text(_WITHOUT_DEMO, encoding="utf-8")
        shutil.copytree(whole.compiled, folder / "compiled")
        flags = tiny(folder / "run", data__selection_images=0, data__root=folder / "data")
        flags = ["--config", str(recipe), *(x for x in flags[2:] if "config.demo" not in x)]
        hook = ("record", str(folder / "keys.txt"))
        ended = command(*flags, hook=hook, compiled=folder / "compiled")
        (folder / "ended.json").write_text(json.dumps(asdict(ended)), encoding="utf-8")

    folder = once("unlabelled", make)
    ended = Ended(**json.loads((folder / "ended.json").read_text(encoding="utf-8")))
    assert ended.code == 0, ended.err
    keys = set((folder / "keys.txt").read_text(encoding="utf-8").split())
    return UnlabelledRun(folder / "run", ended, keys)


_WITHOUT_DEMO = """
import runpy


def get_config():
    config = runpy.run_path("configs/demo.py")["get_config"]()
    del config.demo
    return config
"""


# Minutes long: the last one would keep one worker busy while the others have nothing left to do.
_LONGEST = (
    "test_short_trainings.py", "test_stages.py", "test_planted_mistakes.py", "test_processes.py",
    "test_torture.py", "test_devices.py", "test_bfloat16.py", "test_steps.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that all workers end at about the same time."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With DASAC_REQUIRE_TORCH=1 every test has to have run: one that was skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("DASAC_REQUIRE_TORCH") == "1" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
