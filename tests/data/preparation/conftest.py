"""The command scripts/prepare_data.py, in the process of the test."""

import io

import pytest
from rich.console import Console

from dasac_jax.data.preparation.prepare_data import main


@pytest.fixture
def run(tmp_path):
    """Runs the command with `tmp_path`/data as root: (exit code, standard output)."""

    def call(*arguments):
        file = io.StringIO()
        arguments = [str(a) for a in arguments] + ["--root", str(tmp_path / "data"), "--jobs", "2"]
        code = main(arguments, console=Console(file=file, width=160))
        return code, file.getvalue()

    return call
