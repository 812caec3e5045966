"""Where the prepared sets lie below the data root, and which of their files are there."""

import functools
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from dasac_jax.data import finding
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, cityscapes_label

_LOG = logging.getLogger(__name__)

Entries = Callable[[str], dict[str, os.DirEntry]]
"""Returns the entries of a folder below the data root by name, none for a missing folder."""


class Folders(NamedTuple):
    """Where a set's images and labels lie below the data root.

    pattern: of the images' names, "*.png", or "*/*.png" where each city has a folder of its own.
    """

    images: str
    labels: str
    pattern: str = "*.png"


GTA5 = Folders("game/images", "game/labels_cs")
SYNTHIA = Folders("synthia/RGB", "synthia/labels_cs")


def cityscapes(split: str) -> Folders:
    """The folders of Cityscapes' split "train", "val" or "test" (which has no labels)."""
    return Folders(
        f"cityscapes/leftImg8bit/{split}",
        f"cityscapes/gtFine2/{split}",
        f"*/*{CITYSCAPES_IMAGE}.png",
    )


def folder_entries(root: str | os.PathLike) -> Entries:
    """A function that lists folders below `root`, each of them only once.

    Where the root is on a network, asking for each file alone would take a round trip for each.
    """

    @functools.cache
    def entries(folder: str) -> dict[str, os.DirEntry]:
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                return {entry.name: entry for entry in found}
        except PermissionError:  # what is in there is not missing
            raise
        except OSError:
            return {}

    return entries


def no_entries(folder: str) -> dict[str, os.DirEntry]:
    """`Entries` of folders that are not looked into: none."""
    del folder
    return {}


def image_names(root: str | os.PathLike, entries: Entries, folders: Folders) -> list[str]:
    """The paths of a set's images below its folder, sorted city by city, then by name.

    Suffixes count in any case. Hidden files are left out: they are unfinished. A warning says how
    many other pictures are left out. Raises UserError for a link to nothing that may be meant for
    a city's folder.
    """
    by_city, ending = folders.pattern.startswith("*/"), folders.pattern.rpartition("*")[2]
    stem, suffix = os.path.splitext(ending) if by_city else ("", ending)
    others = []

    def is_image(name: str) -> bool:
        start, end = os.path.splitext(name)
        return start.endswith(stem) and end.lower() == suffix

    def images_in(folder: str) -> list[str]:
        names = [name for name in sorted(entries(folder)) if not name.startswith(".")]
        rest = [name for name in names if not is_image(name) and finding.is_picture(name)]
        others.extend(f"{folder}/{name}" for name in rest)
        return [name for name in names if is_image(name)]

    place = folders.images
    if not by_city:
        found = images_in(place)
    else:
        cities = []
        for name, entry in sorted(entries(place).items()):
            if name.startswith("."):
                continue
            if finding.is_folder(entry):
                cities.append(name)
            elif finding.is_lost(entry):
                raise finding.link_to_nothing(os.path.join(root, place, name))
            elif finding.is_picture(name):
                others.append(f"{place}/{name}")
        found = [f"{city}/{name}" for city in cities for name in images_in(f"{place}/{city}")]
    for text in finding.left_out(others, f"not {folders.pattern} in {place}"):
        _warn_once(text)
    return found


@functools.cache  # several roles read the same folder
def _warn_once(text: str) -> None:
    _LOG.warning("%s", text)


def label_path(entries: Entries, folders: Folders, image: str) -> str:
    """The path of the label that belongs to an image's path in `image_names`, there or not.

    Their suffixes may differ in upper and lower case.
    """
    path = f"{folders.labels}/{cityscapes_label(image)}"
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    there = [found for found in (name, f"{stem}.png", f"{stem}.PNG") if found in entries(folder)]
    return f"{folder}/{there[0]}" if there else path


def missing_files(root: str | os.PathLike, entries: Entries, paths: Iterable[str]) -> list[str]:
    """Those of the paths below `root` that are not files, in their order."""

    def is_there(path: str) -> bool:
        folder, name = os.path.split(path)
        entry = entries(folder).get(name)
        if entry is None:  # some file systems open it under another spelling, such as other case
            return os.path.isfile(os.path.join(root, path))
        return entry.is_file()

    return [path for path in paths if not is_there(path)]


def similar_file(entries: Entries, path: str) -> str | None:
    """A path that differs from a missing one in upper and lower case or in its suffix, or None."""
    place = ""
    for part in path.split("/"):
        wanted = {part.casefold(), os.path.splitext(part)[0].casefold()}
        alike = [
            name
            for name in sorted(entries(place))
            if name == part or wanted & {name.casefold(), os.path.splitext(name)[0].casefold()}
        ]
        if not alike:
            return None
        place = f"{place}/{part if part in alike else alike[0]}".lstrip("/")
    return None if place == path else place


def find_pairs(root: Path, name: str, split: str) -> tuple[tuple[str, str | None], ...]:
    """Image and label paths of a whole set or split below `root`, None where there is no label.

    name: "cityscapes", "gta5" or "synthia"; split: "train", for Cityscapes also "val" or "test".
    Pairs are sorted as those of training. Raises UserError where there is no image.
    """
    sources = {"gta5": GTA5, "synthia": SYNTHIA}
    folders = cityscapes(split) if name == "cityscapes" else sources[name]
    entries = folder_entries(root)
    images = image_names(root, entries, folders)
    if not images:
        raise UserError(
            f"folder {root / folders.images} holds no images {folders.pattern}: "
            "scripts/prepare_data.py puts them there"
        )
    look = no_entries if split == "test" else entries
    labels = [label_path(look, folders, image) for image in images]
    absent = set(labels if split == "test" else missing_files(root, entries, labels))
    return tuple(
        (f"{folders.images}/{image}", None if label in absent else label)
        for image, label in zip(images, labels, strict=True)
    )
