"""A checkpoint that several processes write, each a share of the arrays.

Process 0 writes into the step's own folder, the others into folders beside it. When all shares are
on disk, process 0 moves them into the step's folder, as `process_1` and so on, and renames it. So a
step appears with all shares or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from dasac_jax.checkpoints import integrity, orbax_files, step_folders
from dasac_jax.checkpoints.writer import Job
from dasac_jax.runtime import processes


def own_names(leaves: Mapping[str, Any]) -> list[str]:
    """The names of the arrays that this process writes, nearly as many bytes as each other one."""
    loads, shares = [0] * count(leaves), [[] for _ in range(count(leaves))]
    for name in sorted(leaves, key=lambda name: (-leaves[name].nbytes, name)):
        least = loads.index(min(loads))
        loads[least] += leaves[name].nbytes
        shares[least].append(name)
    process = jax.process_index()
    return shares[process] if process < len(shares) else []


def count(leaves: Mapping[str, Any]) -> int:
    """How many processes have a share of the arrays."""
    return max(1, min(jax.process_count(), len(leaves)))


def write(folder: Path, job: Job, keep: int, messages: processes.Messages) -> None:
    """Write a checkpoint into a folder, and keep the newest `keep` steps there.

    Called by all processes, each with its own arrays. Where one of them cannot write, all raise and
    the folder is as it was.
    """
    part = step_folders.part(folder, job.step)
    process = jax.process_index()
    own = _beside(part, process)
    try:
        messages.together(lambda: None if process else step_folders.drop(part))
        files = messages.together(lambda: _write_share(own, job))
        messages.together(lambda: None if process else _gather(part, files, folder, job.step, keep))
    finally:
        step_folders.drop(own)


def folders(step: Path, number: int) -> list[Path]:
    """Where the shares of a step's folder lie that `number` processes have written."""
    return [step, *(step / _name(process) for process in range(1, number))]


def _write_share(path: Path, job: Job) -> dict[str, list[int]]:
    """Write this process's arrays with their checksum; returns `integrity.sums` of the files."""
    if not job.arrays:
        return {}
    checksum = integrity.checksum(job.arrays)
    orbax_files.write(path, job.arrays, {**job.facts, "checksum": checksum})
    return integrity.sums(path)


def _gather(
    part: Path, files: list[dict[str, list[int]]], folder: Path, step: int, keep: int
) -> None:
    """Make one folder of all shares; called on process 0."""
    checksums = dict(files[0])
    for process, theirs in enumerate(files[1:], start=1):
        if theirs:
            _beside(part, process).rename(part / _name(process))
            checksums |= {f"{_name(process)}/{name}": found for name, found in theirs.items()}
    integrity.write_checksums(part, checksums)
    step_folders.put(part, folder, step, keep)


def _beside(part: Path, process: int) -> Path:
    return part if process == 0 else part.with_name(f"{part.name}.{process}")


def _name(process: int) -> str:
    return f"process_{process}"
