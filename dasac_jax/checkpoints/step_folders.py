"""Folders of steps, with one sub-folder per checkpoint.

A checkpoint is written under another name and then renamed, and renamed again before it is removed.
So it is there as a whole or not at all, at whatever moment a process is killed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_WRITTEN = "part"
_REPLACED = "replaced"
_REMOVED = "removed"
# Names of what a killed process leaves behind, orbax's own among them.
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
        # A process was killed between the two renames of `put`.
        if path.stem.isdecimal():
            found.setdefault(int(path.stem), path)
    return dict(sorted(found.items(), reverse=True))


def clear(folder: Path) -> None:
    """Remove what killed processes left half written or half removed.

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
    """The folder to write a step to, which `steps` does not list; `drop` it first."""
    return folder / f"{step}.{_WRITTEN}"


def drop(path: Path) -> None:
    """Remove a folder and those beside it whose names begin with its name."""
    for found in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(found, ignore_errors=True)


def put(written: Path, folder: Path, step: int, keep: int) -> None:
    """Rename the finished folder `written`, whose name `part` gave, to that of its step.

    Afterwards steps with a higher number are removed, and of the others all but the newest `keep`.
    Raises OSError where a folder cannot be renamed.
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
    """Flush a folder's entries to disk, so that a power cut cannot lose both old and new steps."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
