"""Whatever moment a process is killed at: a checkpoint is there as a whole, and none is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dasac_jax.checkpoints import step_folders


class Killed(BaseException):
    """Stands for SIGKILL: nothing is put in order behind it."""


def _make(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "state").write_text(content)
    return path


def _there(folder: Path) -> dict[int, str]:
    return {step: (path / "state").read_text() for step, path in step_folders.steps(folder).items()}


def test_steps_come_newest_first(tmp_path):
    for name in ("9", "10", "text", "11.part", "12.removed"):
        _make(tmp_path / name, name)
    (tmp_path / "13").touch()
    assert list(_there(tmp_path)) == [10, 9]
    assert step_folders.steps(tmp_path / "none") == {}


def test_others_go_only_when_the_new_one_is_there(tmp_path, monkeypatch):
    for step in (10, 20, 30, 40):
        _make(tmp_path / str(step), "old")
    left = []
    remove = shutil.rmtree

    def watched(path, **options):
        left.append(_there(tmp_path).get(25))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    written = _make(step_folders.part(tmp_path, 25), "new")
    step_folders.put(written, tmp_path, 25, keep=2)
    assert left and set(left) == {"new"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["20", "25"]


@pytest.mark.parametrize("step", [20, 30])
def test_killed_at_any_call(tmp_path, monkeypatch, step):
    """Killed in front of each call that changes the disk, one after the other, and read again."""
    calls = {(os, "rename"): os.rename, (shutil, "rmtree"): shutil.rmtree}
    for fatal in range(20):
        folder = tmp_path / str(fatal)
        for other in (10, 20):
            _make(folder / str(other), "old")
        written = _make(step_folders.part(folder, step), "new")
        count = 0

        def dying(*args, call, fatal=fatal, **options):
            nonlocal count
            count += 1
            if count > fatal:
                raise Killed
            return call(*args, **options)

        for (module, name), call in calls.items():
            monkeypatch.setattr(
                module, name, lambda *a, call=call, dying=dying, **o: dying(*a, call=call, **o)
            )
        try:
            step_folders.put(written, folder, step, keep=2)
        except Killed:
            ended = False
        else:
            ended = True
        monkeypatch.undo()
        seen = _there(folder)
        assert {10, 20} <= seen.keys() or (seen[step] == "new" and len(seen) >= 2)
        step_folders.clear(folder)
        assert _there(folder) == seen
        assert all(path.name.isdecimal() for path in folder.iterdir())
        if ended:
            break
    assert ended and fatal > 1
    assert seen == {step: "new", 30 - step if step == 20 else 20: "old"}


def test_what_was_killed_is_cleared(tmp_path):
    _make(tmp_path / "1", "old")
    for name in ("2.part", "2.part.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-17", "4.removed"):
        _make(tmp_path / name, "half")
    _make(tmp_path / "1.replaced", "older")
    _make(tmp_path / "5.replaced", "whole")
    _make(tmp_path / "notes.part", "of someone else")
    step_folders.clear(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "5", "notes.part"]
    assert _there(tmp_path) == {5: "whole", 1: "old"}
