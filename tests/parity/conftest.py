"""What the comparisons with the authors' numbers share."""

from types import ModuleType

import golden_runs
import pytest


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """The module golden_runs.py."""
    return golden_runs
