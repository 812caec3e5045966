"""A folder with checkpoints, and what is done with small ones in many tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module small.py."""
    specification = importlib.util.spec_from_file_location(
        "checkpoints_small", Path(__file__).with_name("small.py")
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pair(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with steps 1 and 2, for tests to copy."""
    folder = tmp_path_factory.mktemp("pair")
    small.write(folder, 1, 2)
    return folder
