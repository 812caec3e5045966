"""Image files of users: found by file, folder, list or pattern, and read as RGB."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dasac_jax.data import list_files
from dasac_jax.data.decoding import DECODE_ERRORS
from dasac_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
"""The suffixes of images in folders; a file that is given by name may have any other."""

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
"""The suffixes of lists of images."""

_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")


class ImageFile(NamedTuple):
    """An image to read, and its name for output files: a relative path without suffix."""

    path: Path
    name: str


def find_images(
    given: Sequence[str | os.PathLike], *, outside: str | os.PathLike | None = None
) -> list[ImageFile]:
    """The images that files, folders, lists and patterns stand for, each once, in order.

    A folder stands for its images (SUFFIXES) at any depth, sorted and without hidden ones; a file
    ending in .txt, .csv or .tsv for those that it lists; a pattern for the files that match it
    ("**": any depth).
    Names are relative to the folder where exactly one was given, else to the deepest folder that
    all images share. outside: a folder whose images are left out, such as that of the results.

    Raises UserError for what does not exist, for no images at all, and for two images of the
    same name (a.png beside a.jpg), whose results would overwrite each other.
    """
    paths = [path for item in given for path in _paths(os.fspath(item))]
    paths = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    if outside is not None:
        paths = [p for p in paths if not p.is_relative_to(os.path.abspath(outside))]
    if not paths:
        places = ", ".join(os.fspath(item) for item in given) or "nothing"
        raise UserError(f"no images in {places}: files ending in {', '.join(SUFFIXES)} are needed")
    if len(given) == 1 and os.path.isdir(given[0]):
        root = os.path.abspath(given[0])
    else:
        root = os.path.commonpath([path.parent for path in paths])
    found: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise UserError(
                f"{found[name]} and {path} differ in their suffix only, so their results would "
                "have the same name: predict them to different folders"
            )
        found[name] = path
    return [ImageFile(path, name) for name, path in found.items()]


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file of any common pixel format → (H, W, 3) uint8 RGB.

    Grey, palette and CMYK images become RGB, and transparency is dropped; of 16-bit channels the
    upper 8 bits are kept; of several pictures in a file the first is taken; the image is turned as
    its EXIF orientation says. Raises UserError naming the file when it is missing, empty, cut off,
    damaged, or holds 32-bit numbers.
    """
    try:
        if os.path.getsize(path) == 0:
            raise UserError(f"image {path} is empty (0 bytes)")
        with Image.open(path) as image:
            mode = image.mode
            if mode in _SIXTEEN_BITS:
                grey = np.asarray(image).astype(np.uint16) >> 8
                image = Image.fromarray(grey.astype(np.uint8))
            elif mode not in _EIGHT_BITS:
                raise UserError(
                    f"image {path} has pixel format {mode}: 8 or 16 bits per channel are needed"
                )
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read image {path}: {error}") from error


def _paths(item: str) -> list[str]:
    """The paths that one file, folder, list or pattern stands for."""
    if os.path.isdir(item):
        return _in_folder(item)
    if os.path.isfile(item):
        return _listed(item) if item.lower().endswith(LIST_SUFFIXES) else [item]
    if glob.has_magic(item):
        matches = sorted(glob.glob(item, recursive=True))
        return [path for path in matches if os.path.isfile(path)]
    raise UserError(f"there is no image, folder or list {item}")


def _in_folder(folder: str) -> list[str]:
    """The sorted paths of a folder's images at any depth, without hidden files and folders."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _listed(path: str) -> list[str]:
    """A list's images, one in a line, relative to one of three folders.

    They are the list's own, the current one, and the one above the list's, where the images lie if
    the list is one of those that training reads.
    """
    folder = os.path.dirname(path)
    folders = (folder, "", os.path.dirname(os.path.abspath(folder)))

    def find(listed: str) -> str | None:
        places = [os.path.join(f, s) for s in list_files.spellings(listed) for f in folders]
        return next((place for place in places if os.path.isfile(place)), None)

    found = []
    for line in list_files.read(path, find):
        if not line.image_found:
            raise UserError(
                f"list file {path}, line {line.number}: there is no image {line.image} in the "
                f"list's folder ({folder or '.'}), the current one, or that above the list's"
            )
        found.append(line.image)
    return found
