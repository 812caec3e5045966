"""Every start of a run is written down."""

import subprocess
import sys

import pytest

from dasac_jax.errors import UserError
from dasac_jax.reporting import start_log


def git(folder, *words):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_each_start_has_a_line(tiny_config, tmp_path):
    start_log.append(tmp_path, tiny_config())
    start_log.append(tmp_path, tiny_config(seed=5))
    first, second = start_log.read(tmp_path)
    assert (first["seed"], second["seed"]) == (0, 5)
    assert second["config"]["seed"] == 5 and second["config"]["adapt.crop"] == [32, 64]
    assert second["devices"] == {"kind": "cpu", "count": 8, "processes": 1}
    python = ".".join(str(number) for number in sys.version_info[:3])
    assert second["versions"]["python"] == python
    names = {"dasac-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"}
    assert names <= second["versions"].keys() and "unknown" not in second["versions"].values()
    assert "pytest" in second["command"] or "-c" in second["command"]
    assert second["host"] and second["started"] >= first["started"]


def test_commit_of_a_checkout(tmp_path):
    assert start_log.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    name = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert start_log.commit(tmp_path) == {"id": name, "changed": False}
    (tmp_path / "file").write_text("2")
    assert start_log.commit(tmp_path) == {"id": name, "changed": True}


def test_a_checkout_that_git_does_not_know_is_reported(tmp_path, caplog):
    (tmp_path / ".git").mkdir()
    assert start_log.commit(tmp_path) is None
    assert f"the git commit of {tmp_path} is not known" in caplog.text


def test_nothing_there(tmp_path):
    assert start_log.read(tmp_path) == []


@pytest.mark.parametrize("bad", ["{", "[1]", "7"])
def test_a_damaged_line_is_named(bad, tmp_path):
    (tmp_path / "runs.jsonl").write_text(f"{{}}\n{bad}\n")
    with pytest.raises(UserError, match=r"runs\.jsonl, line 2 cannot be read"):
        start_log.read(tmp_path)


@pytest.mark.parametrize("cut", ['{"se', '{"devices": {"count": 1}'])
def test_a_last_line_that_is_cut_off_is_passed_over(cut, tmp_path, caplog):
    (tmp_path / "runs.jsonl").write_text(f'{{"seed": 1}}\n{{"seed": 2}}\n{cut}')
    assert start_log.read(tmp_path) == [{"seed": 1}, {"seed": 2}]
    assert "runs.jsonl is cut off" in caplog.text


def test_a_whole_last_line_counts_without_its_line_end(tmp_path, caplog):
    (tmp_path / "runs.jsonl").write_text('{"seed": 1}\n{"seed": 2}')
    assert start_log.read(tmp_path) == [{"seed": 1}, {"seed": 2}]
    assert not caplog.text
