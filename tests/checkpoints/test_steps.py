"""Whatever moment a process is killed at: a checkpoint is there as a whole, and none is lost."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.checkpoints import integrity, steps, store


class Killed(BaseException):
    """Stands for SIGKILL: nothing is put in order behind it."""


def _make(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "state").write_text(content)
    integrity.seal(path, {})
    return path


def _there(folder: Path) -> dict[int, int]:
    """The epoch of each step that is whole."""
    found = steps.steps(folder)
    return {
        step: integrity.read_json(path)["epoch"]
        for step, path in found.items()
        if integrity.is_whole(path)
    }


def test_steps_come_newest_first(tmp_path):
    for name in ("9", "10", "text", "11.part", "12.removed"):
        _make(tmp_path / name, name)
    (tmp_path / "13").touch()
    assert list(steps.steps(tmp_path)) == [10, 9]
    assert steps.steps(tmp_path / "none") == {}


def _write(folder: Path, step: int, fatal: int | None = None) -> bool:
    """Write a step of epoch 9; whether it ended, or was killed in front of a call to the disk."""
    count = 0
    manager = store.open_manager(folder).newest

    def dying(call):
        def counted(*args, **options):
            nonlocal count
            count += 1
            if count == fatal:
                raise Killed
            return call(*args, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (os, "rename"), (os, "replace"), (shutil, "rmtree"), (Path, "unlink"), (Path, "mkdir"),
            (manager._manager, "save"), (manager._manager, "delete"), (integrity, "seal"),
        ):  # fmt: skip
            patch.setattr(owner, name, dying(getattr(owner, name)))
        try:
            facts = {"epoch": 9, "format": 4}
            manager.write(step, {"a": np.full(3, 9.0, np.float32)}, facts)
        except Killed:
            return False
    return True


@pytest.mark.parametrize(("step", "kept"), [(2, {1: 1, 2: 9}), (3, {2: 2, 3: 9}), (1, {1: 9})])
def test_killed_at_any_call(pair, tmp_path, step, kept):
    """Killed in front of each call that changes the disk, one after the other, and read again."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    for fatal in range(1, 40):
        folder = shutil.copytree(pair, tmp_path / str(fatal))
        ended = _write(folder, step, fatal)
        seen = _there(folder)
        assert seen.keys() >= {1, 2} or (seen[step] == 9 and seen.items() >= kept.items()), fatal
        store.open_manager(folder)
        assert _there(folder) == seen
        assert all(path.name.isdecimal() for path in folder.iterdir())
        assert store.read(folder)[1]["epoch"] == seen[max(seen)]
        if ended:
            break
    assert ended and fatal > 5
    assert seen == kept


def test_what_was_killed_is_cleared(tmp_path):
    _make(tmp_path / "1", "old")
    for name in ("2.part", "2.part.1", "3.part-x", "3.orbax-checkpoint-tmp-17", "4.removed"):
        _make(tmp_path / name, "half")
    _make(tmp_path / "1.replaced", "older")
    _make(tmp_path / "5.replaced", "whole")
    _make(tmp_path / "notes.part", "of someone else")
    (_make(tmp_path / "6", "not sealed") / "files.json").unlink()
    (tmp_path / "7").touch()
    steps.clear(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "5", "7", "notes.part"]
    assert {step: (p / "state").read_text() for step, p in steps.steps(tmp_path).items()} == {
        5: "whole", 1: "old",
    }  # fmt: skip
