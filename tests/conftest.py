"""What every test needs: simulated devices, golden numbers, and PyTorch where it is installed."""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NoReturn
from unittest import mock

import compiling

# All of this has to stand before jax is first imported; subprocesses of a test inherit it.
os.environ["XLA_FLAGS"] = compiling.xla_flags(devices=8)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# All workers, their children and the next run of the suite share what they compile. With a limit
# of its size JAX locks its cache, so that nobody reads a program that another is still writing.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 * 1024**3))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import numpy as np
import pytest

from dasac_jax.runtime import garbage, malloc

malloc.keep_memory()  # as the commands do: XLA's programs clear new memory else with each call

garbage.collect_seldom()

pytest_plugins = ("run_fixtures",)  # `command`, `called`, `tiny`, `whole` and others

GOLDEN = Path(__file__).parent / "golden"
_MUCH_MEMORY = 2 * 1024**3


@pytest.fixture(scope="module", autouse=True)
def freed_memory() -> Iterator[None]:
    """Behind a file's tests, what they freed is returned where this process has grown large.

    Doing so takes seconds, since a heap lies in many pieces: so the package's own code does not do
    it in this process. Commands in processes of their own do as ever.
    """
    with mock.patch.object(malloc, "give_back"):
        yield
    statm = Path("/proc/self/statm")  # Linux, as is the C library that can return it
    if statm.exists():
        resident = int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
        if resident > _MUCH_MEMORY:
            malloc.give_back()


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
        missing(f"the [torch] extra, and timm for some tests ({error})", "DASAC_REQUIRE_TORCH")


def missing(what: str, required: str) -> NoReturn:
    """Skip a test that needs what is not part of the package's extra for tests.

    With the environment variable `required` at 1, as in CI, nothing is skipped: the test fails.
    """
    if os.environ.get(required) == "1":
        pytest.fail(f"{required}=1, so install {what}", pytrace=False)
    pytest.skip(f"install {what}")


@pytest.fixture(scope="session")
def browser() -> str:
    """Chromium. Where it is missing the test is skipped, or fails if DASAC_REQUIRE_CHROMIUM=1."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None) or missing("Chromium", "DASAC_REQUIRE_CHROMIUM")


@pytest.fixture
def browser_environment() -> Iterator[dict[str, str]]:
    """Variables for Chromium, which leaves a folder in TMPDIR each time.

    A short path, unlike `tmp_path`: Chromium makes a socket there.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield os.environ | {"TMPDIR": folder}


@pytest.fixture(scope="session")
def onnxruntime_web() -> Path:
    """The folder with onnxruntime-web that DASAC_ONNXRUNTIME_WEB names; else as without Chromium.

    `bash scripts/onnxruntime_web.sh FOLDER` makes it.
    """
    folder = os.environ.get("DASAC_ONNXRUNTIME_WEB")
    return Path(folder) if folder else missing("onnxruntime-web", "DASAC_REQUIRE_CHROMIUM")


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


def pytest_configure() -> None:
    """Forget programs that a killed process was writing: JAX would warn of them ever after."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for program in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*-cache"):
            if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
                program.unlink(missing_ok=True)


# Minutes long: the last one would keep one worker busy while the others have nothing left to do.
_LONGEST = (
    "training/test_stages.py", "parity/test_short_trainings.py", "runtime/test_processes.py",
    "scripts/test_torture.py", "parity/test_planted_method_mistakes.py",
    "parity/test_planted_optimiser_mistakes.py", "parity/test_bfloat16.py",
    "method/test_transformer.py", "own_data/test_layouts.py", "method/test_devices.py",
    "training/test_custom_data.py",
)  # fmt: skip

# Together they take half of the time that is left: `--fast` does without them.
_SLOW = {
    *_LONGEST,
    "benchmarks/test_gpu_check.py", "benchmarks/test_sides.py", "configs/test_configs.py",
    "data/demo/test_render.py",
    "evaluation/test_many_sizes.py", "export/test_command.py", "export/test_onnx_file.py",
    "export/test_stablehlo.py", "inference/test_trained_network.py", "interop/test_convert.py",
    "interop/test_export.py", "interop/torch_files/test_memory.py",
    "method/test_consistency_devices.py", "method/test_steps_memory.py",
    "method/test_steps_options.py", "method/test_steps_teacher.py", "models/test_dinov2.py",
    "models/test_layers.py", "models/test_models.py", "models/test_pools.py",
    "models/test_remat.py", "models/test_winograd.py",
    "image/test_views_pillow.py", "reporting/test_contact_sheet.py",
    "reporting/test_validation_pictures.py", "training/test_final_scores.py",
    "predict/test_predict_killed.py", "runtime/test_program_cache.py",
    "scripts/test_benchmark_data.py", "scripts/test_show_views.py",
    "test_convert_torch_weights.py", "test_evaluate.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that all workers end at about the same time.

    What runs commands in processes of their own is slow, and so is what trains large networks.
    """
    order = {name: number for number, name in enumerate(_LONGEST)}
    places = {item: item.path.relative_to(Path(__file__).parent).as_posix() for item in items}
    for item, place in places.items():
        runs = "command" in getattr(item, "fixturenames", ())
        if runs or place.startswith("parity/") or place in _SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: order.get(places[item], len(order)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With DASAC_REQUIRE_TORCH=1 every test has to have run: one that was skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("DASAC_REQUIRE_TORCH") == "1" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
