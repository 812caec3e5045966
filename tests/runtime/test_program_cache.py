"""Where compiled programs are kept."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dasac_jax.runtime import program_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_found():
    """Restore the cache folder that other tests share."""
    folder = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", folder)


def test_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(program_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = program_cache.keep_programs()
    assert folder.parent == tmp_path / "cache" / "dasac_jax" / "xla"
    assert folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert program_cache.keep_programs() == folder


@pytest.mark.parametrize("elsewhere", [None, "relative"])
def test_in_the_home_directory(monkeypatch, tmp_path, elsewhere):
    monkeypatch.delenv(program_cache.VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if elsewhere:
        monkeypatch.setenv("XDG_CACHE_HOME", elsewhere)
    assert program_cache.keep_programs().is_relative_to(tmp_path / ".cache" / "dasac_jax" / "xla")


def test_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv(program_cache.VARIABLE, str(tmp_path / "given"))
    assert program_cache.keep_programs() == tmp_path / "given"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given")


def test_nowhere_if_the_variable_is_empty(monkeypatch):
    monkeypatch.setenv(program_cache.VARIABLE, "")
    assert program_cache.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_unwritable_folder_warns(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(program_cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert program_cache.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir is None
    (record,) = caplog.records
    assert "compiled programs are not kept" in record.message
    assert str(tmp_path / "file" / "cache") in record.message
    assert program_cache.VARIABLE in record.message


def compile_and_count(home):
    """Compile two small programs in a new process; hits of the cache, and its stderr."""
    program = (
        "from dasac_jax.runtime import program_cache; program_cache.keep_programs()\n"
        "import jax, jax.numpy as jnp\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))\n"
        "print(hits.count('/jax/compilation_cache/cache_hits'))\n"
    )
    environment = {
        "PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(home),
        "XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return int(ended.stdout), ended.stderr


def test_a_second_process_finds_the_programs(tmp_path):
    hits = [compile_and_count(tmp_path)[0] for _ in range(2)]
    assert hits[0] == 0
    assert hits[1] > 0


def test_incomplete_programs_are_compiled_once_more(tmp_path):
    compile_and_count(tmp_path)
    programs = list(tmp_path.rglob("*-cache"))
    for path, size in zip(programs[1:], (0, 300, 300, 0), strict=False):
        os.truncate(path, size)
    assert compile_and_count(tmp_path) == (1, "")
    assert compile_and_count(tmp_path) == (len(programs), "")
