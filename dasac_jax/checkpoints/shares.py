"""A checkpoint written by all processes: each its share of the arrays, all or nothing.

The first process writes into the step's own folder, the others beside it; when all shares are on
disk the first one gathers them, as `process_1` and so on, and gives the whole its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from dasac_jax.checkpoints import integrity, orbax_files, step_folders
from dasac_jax.checkpoints.writer import Job
from dasac_jax.runtime import processes


def mine(leaves: Mapping[str, Any]) -> list[str]:
    """The names of the arrays that this process writes: nearly as many bytes as the others."""
    loads, shares = [0] * count(leaves), [[] for _ in range(count(leaves))]
    for name in sorted(leaves, key=lambda name: (-leaves[name].nbytes, name)):
        least = loads.index(min(loads))
        loads[least] += leaves[name].nbytes
        shares[least].append(name)
    me = jax.process_index()
    return shares[me] if me < len(shares) else []


def count(leaves: Mapping[str, Any]) -> int:
    """How many processes have a share of the arrays."""
    return max(1, min(jax.process_count(), len(leaves)))


def write(folder: Path, job: Job, keep: int, talk: processes.Messages) -> None:
    """Put a job's checkpoint into a folder as a whole, and keep the newest `keep` steps there.

    Called by all processes, each with its arrays; raises on all of them where one cannot write,
    the folder being as it was.
    """
    part = step_folders.part(folder, job.step)
    me = jax.process_index()
    own = _beside(part, me)
    try:
        talk.together(lambda: None if me else step_folders.drop(part))
        files = talk.together(lambda: _write_share(own, job))
        talk.together(lambda: None if me else _gather(part, files, folder, job.step, keep))
    finally:
        step_folders.drop(own)


def folders(step: Path, number: int) -> list[Path]:
    """Where the shares of a step's folder lie that `number` processes have written."""
    return [step, *(step / _name(process) for process in range(1, number))]


def _write_share(path: Path, job: Job) -> dict[str, list[int]]:
    """Write this process's arrays, with facts and their checksum; gives the files' sums."""
    if not job.arrays:
        return {}
    checksum = integrity.checksum(job.arrays)
    orbax_files.write(path, job.arrays, {**job.facts, "checksum": checksum})
    return integrity.sums(path)


def _gather(
    part: Path, files: list[dict[str, list[int]]], folder: Path, step: int, keep: int
) -> None:
    """Make one folder of all shares, on the first process."""
    sealed = dict(files[0])
    for process, theirs in enumerate(files[1:], start=1):
        if theirs:
            _beside(part, process).rename(part / _name(process))
            sealed |= {f"{_name(process)}/{name}": found for name, found in theirs.items()}
    integrity.seal(part, sealed)
    step_folders.put(part, folder, step, keep)


def _beside(part: Path, process: int) -> Path:
    return part if process == 0 else part.with_name(f"{part.name}.{process}")


def _name(process: int) -> str:
    return f"process_{process}"
