"""A run that nothing has been done in yet."""

import pytest

from dasac_jax.training.workdir import Run


@pytest.fixture
def run(tiny_config, tmp_path, monkeypatch):
    """run(**changes): a run in tmp_path, with 50 source images."""
    monkeypatch.setattr(Run, "open", lambda self, role: range(50))
    return lambda **changes: Run(tiny_config(**changes), tmp_path)
