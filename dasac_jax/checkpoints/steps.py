"""Folders of steps, with one sub-folder to a checkpoint."""

import os
import re
import shutil
from pathlib import Path

from dasac_jax.checkpoints.integrity import CHECKSUM_FILE, is_whole

_ASIDE = ".replaced"
_OURS = re.compile(rf"(\d+)({_ASIDE}|\.part\b.*|\.removed\b.*|\.orbax-checkpoint-tmp.*)?")


def steps(folder: Path) -> dict[int, Path]:
    """The steps that a path means, the newest first: a folder's, or the one whose folder it is."""
    if folder.name.isdecimal() and any((folder / x).exists() for x in ("state", CHECKSUM_FILE)):
        return {int(folder.name): folder}
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = path.name.removesuffix(_ASIDE)
        replaced = path.name != number and is_whole(folder / number)
        if number.isdecimal() and path.is_dir() and not replaced:
            found[int(number)] = path
    return dict(sorted(found.items(), reverse=True))


def clear(folder: Path, step: int | None = None) -> None:
    """Remove what is not whole, put back what was set aside for it, and set `step` aside.

    What was set aside for a step that is whole is removed. Raises OSError where it cannot be.
    """
    for path in sorted(folder.iterdir()):
        match = _OURS.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        place = folder / match[1]
        if match[2] not in (None, _ASIDE) or not is_whole(path):
            shutil.rmtree(path)
        elif path != place:
            shutil.rmtree(path) if place.exists() else os.rename(path, place)
    if step is not None and (path := folder / str(step)).exists():
        os.rename(path, f"{path}{_ASIDE}")
        path.mkdir()  # for orbax, which knows the step, to remove
