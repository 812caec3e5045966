"""The golden runs' helpers, as a fixture: tests are no package that one could import from."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """The module golden_runs.py beside this file."""
    path = Path(__file__).with_name("golden_runs.py")
    specification = importlib.util.spec_from_file_location("golden_runs", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
