"""What every test needs: simulated devices, golden numbers, and PyTorch where it is installed."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

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

GOLDEN = Path(__file__).parent / "golden"


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
    try:
        import torch
    except ImportError:
        if os.environ.get("DASAC_REQUIRE_TORCH") == "1":
            pytest.fail("DASAC_REQUIRE_TORCH=1, but torch is not installed", pytrace=False)
        pytest.skip("install the [torch] extra")
    torch.set_num_threads(1)
    return torch


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With DASAC_REQUIRE_TORCH=1 every test has to have run: one that was skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("DASAC_REQUIRE_TORCH") == "1" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
