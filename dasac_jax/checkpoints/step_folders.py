"""Folders of steps: one sub-folder per checkpoint, put there and taken away in one go each.

Whatever moment a process is killed at, a checkpoint is there as a whole or not at all: it is
written under another name and renamed, and renamed again before it is removed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_WRITTEN = "part"
_REPLACED = "replaced"
_REMOVED = "removed"
# What was killed leaves behind, by orbax's own names too.
_LEFT_BEHIND = re.compile(rf"(\d+)\.({_WRITTEN}|{_REPLACED}|{_REMOVED}|orbax-checkpoint-tmp)\b.*")
_PARTS_OF_A_STEP = ("state", "metadata", "files.json")


def is_step(path: Path) -> bool:
    """Whether a folder is that of one step, undamaged or not."""
    return path.name.isdecimal() and any((path / name).exists() for name in _PARTS_OF_A_STEP)


def steps(folder: Path) -> dict[int, Path]:
    """The steps in a folder and where they lie, the newest first."""
    if not folder.is_dir():
        return {}
    found = {int(p.name): p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()}
    for path in folder.glob(f"*.{_REPLACED}"):
        # Killed between the two renames of `put`.
        if path.stem.isdecimal():
            found.setdefault(int(path.stem), path)
    return dict(sorted(found.items(), reverse=True))


def clear(folder: Path) -> None:
    """Remove what processes that were killed left half written or half removed.

    Raises OSError where that is not permitted.
    """
    for path in sorted(folder.iterdir()):
        match = _LEFT_BEHIND.fullmatch(path.name)
        if match is None:
            continue
        whole = folder / match[1]
        if match[2] == _REPLACED and not whole.exists():
            os.rename(path, whole)
        else:
            shutil.rmtree(path)


def part(folder: Path, step: int) -> Path:
    """Where a step is to be written, out of sight of `steps`; `drop` it first."""
    return folder / f"{step}.{_WRITTEN}"


def drop(path: Path) -> None:
    """Remove what was written to `path`, and beside it under a longer name."""
    for found in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(found, ignore_errors=True)


def put(written: Path, folder: Path, step: int, keep: int) -> None:
    """Make what was written to `part` the newest step; only then are others removed.

    Those are later steps, and all but the newest `keep`. Raises OSError where a folder cannot be
    renamed.
    """
    final, replaced = folder / str(step), folder / f"{step}.{_REPLACED}"
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(final, replaced)
    os.rename(written, final)
    _flush(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    there = steps(folder)
    kept = [other for other in there if other <= step][:keep]
    for other, path in there.items():
        if other not in kept:
            removed = folder / f"{other}.{_REMOVED}"
            drop(removed)
            os.rename(path, removed)
            drop(removed)


def _flush(folder: Path) -> None:
    """Have a folder's names on the disk, so that power may fail before others are removed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
