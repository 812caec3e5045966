"""The one way in which image and label files are found below a folder, and their order."""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dasac_jax.errors import UserError
from dasac_jax.files import check_reachable

_LOG = logging.getLogger(__name__)

PNG = (".png",)

_PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".tga", ".exr", ".dng",
)  # fmt: skip
# What files are called that most likely hold pictures, so that passing over them is worth a word.


class Found(NamedTuple):
    """What was found below a folder, in natural order.

    paths: the files with a suffix that was asked for. others: files of other suffixes that hold
    pictures by their names.
    """

    paths: list[Path]
    others: list[Path]


def find(folder: str | os.PathLike, suffixes: Sequence[str]) -> Found:
    """The files below a folder, at any depth, whose names end in one of these lower-case suffixes.

    Suffixes count in any case, links are followed, and hidden files and folders are left out. A
    link to a folder that it lies in is not followed: it leads to nothing new. A link to nothing is
    found as a file where its name has one of the suffixes.

    Raises UserError naming the folder that is missing or cannot be read, or a link to nothing that
    may be meant for a folder.
    """
    if not os.path.isdir(folder):
        check_reachable(folder)
        raise UserError(f"folder {folder} is missing")
    found = Found([], [])
    _search(os.fspath(folder), tuple(suffixes), frozenset(), found)
    for paths in found:
        paths.sort(key=natural)
    return found


def label_maps(folder: Path) -> list[Path]:
    """The label PNGs below a folder. A warning says how many other pictures are left out.

    Raises UserError where there is no PNG, and as `find` does.
    """
    paths, others = find(folder, PNG)
    if not paths:
        told = "".join(f"; {text}" for text in left_out(others, "no PNG"))
        raise UserError(f"folder {folder} holds no PNG images, as label maps are{told}")
    warn_of_left_out(others, "no PNG")
    return paths


def pngs(folder: Path, depth: int, ending: str = "") -> Found:
    """The PNGs exactly so many folders below a folder, sorted, and as `others` all other pictures.

    ending: how their stems end. Both are empty where there is no such folder.
    """
    found = find(folder, PNG) if folder.is_dir() else Found([], [])
    place = len(folder.parts) + depth + 1
    chosen = {p for p in found.paths if len(p.parts) == place and p.stem.endswith(ending)}
    return Found(sorted(chosen), [p for p in found.paths if p not in chosen] + found.others)


def _search(
    folder: str, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]], found: Found
) -> None:
    """Add to `found` what lies below a folder. above: device and number of the folders above it."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"folder {folder} cannot be searched: {error.strerror}") from error
    this = (status.st_dev, status.st_ino)
    if this in above:
        return
    for entry in entries:
        name = entry.name.lower()
        if is_folder(entry):
            _search(entry.path, suffixes, above | {this}, found)
        elif name.endswith(suffixes):
            found.paths.append(Path(entry.path))
        elif not is_lost(entry):
            if name.endswith(_PICTURES):
                found.others.append(Path(entry.path))
        else:
            raise link_to_nothing(entry.path)


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def is_lost(entry: os.DirEntry) -> bool:
    """Whether an entry is a link to what is not there."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def link_to_nothing(path: str | os.PathLike) -> UserError:
    """The error for a link to what is not there, where a folder might be meant."""
    return UserError(
        f"{path} is a link to {os.readlink(path)}, which is not there, so files may be missing: "
        "mend the link, or remove it"
    )


def left_out(paths: Sequence[str | os.PathLike], why: str) -> list[str]:
    """A sentence on pictures that are passed over, as a list of one; none where there are none.

    why: what they are not, as in "no PNG".
    """
    if not paths:
        return []
    suffixes = Counter(os.path.splitext(path)[1].lower() for path in paths)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
    files = "picture is" if len(paths) == 1 else "pictures are"
    return [f"{len(paths)} {files} left out, {why} ({kinds}), first {os.fspath(paths[0])}"]


def warn_of_left_out(paths: Sequence[str | os.PathLike], why: str) -> None:
    """Log `left_out` as a warning."""
    for text in left_out(paths, why):
        _LOG.warning("%s", text)


def is_picture(name: str) -> bool:
    """Whether a file of this name most likely holds a picture."""
    return name.lower().endswith(_PICTURES)


def natural(path: str | os.PathLike) -> Any:
    """The key for sorting paths folder by folder, the numbers in names by their value.

    So frame_2 comes before frame_10, as frames of a video that are numbered without leading zeros.
    """
    text = os.fspath(path)
    parts = [re.split(r"([0-9]+)", part) for part in text.split(os.sep)]
    # Text and numbers alternate, beginning with text, so that like is compared with like.
    return [[int(x) if i % 2 else x for i, x in enumerate(part)] for part in parts], text
