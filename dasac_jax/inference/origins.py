"""Which image each file in a folder of predictions was made of, so that none stands for another's.

Names alone do not tell: frames of two drives are called alike, and an image may be replaced in
its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dasac_jax.errors import UserError
from dasac_jax.inference.image_files import ImageFile

IMAGES_FILE = "images.jsonl"
"""A line for each predicted image in a folder of predictions; of several of one name the last."""


class Origin(NamedTuple):
    """An image file: absolute path, size in bytes, time of change in nanoseconds, SHA-256."""

    path: str
    bytes: int
    modified: int
    sha256: str


class Compared(NamedTuple):
    """Names of images whose files in the folder are another matter than absent or finished.

    changed: the image was replaced since. unrecorded: nothing says which image they were made of.
    """

    changed: frozenset[str]
    unrecorded: frozenset[str]


class Origins:
    """The record of a folder of predictions. Many threads may use it at once.

    Raises UserError where it cannot be read. A line that a killed process left unfinished is
    skipped.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / IMAGES_FILE
        self._lock = threading.Lock()
        self._noted: dict[str, Origin] = {}
        self._known, self._torn = _read(self._path)

    def compare(self, images: Sequence[ImageFile], written: Sequence[bool]) -> Compared:
        """Compare images with what the files of their names were made of.

        written: whether there is any file of each image. Raises UserError where files were made of
        another image, which is one of another path and of another content.
        """
        changed, unrecorded = set(), set()
        for image, is_written in zip(images, written, strict=True):
            if not is_written:
                continue
            known = self._known.get(image.name)
            if known is None:
                unrecorded.add(image.name)
            elif (now := _status(image.path)) != known[:3]:
                self.note(image)
                if self._noted[image.name].sha256 == known.sha256:  # moved or copied
                    self.record(image)
                elif now[0] == known.path:
                    changed.add(image.name)
                else:
                    raise UserError(
                        f"{self._path.parent} holds the predictions of {known.path} under the name "
                        f"{image.name}, which {image.path}, another image, would get: choose "
                        "another --output, or remove the predictions there"
                    )
        return Compared(frozenset(changed), frozenset(unrecorded))

    def note(self, image: ImageFile) -> None:
        """Take down an image as it is now, just before it is read. Raises UserError."""
        self._noted[image.name] = of_file(image.path)

    def record(self, image: ImageFile) -> None:
        """Write down what was noted of an image, just before its files are written.

        Raises UserError where that fails.
        """
        origin = self._noted.pop(image.name)
        line = json.dumps({"name": image.name, **origin._asdict()}, ensure_ascii=False) + "\n"
        with self._lock:
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write("\n" * self._torn + line)
            except OSError as error:
                raise UserError(f"cannot write {self._path}: {error.strerror}") from error
            self._torn = False
            self._known[image.name] = origin


def of_file(path: Path) -> Origin:
    """A file as it is now. Raises UserError naming the image that cannot be read."""
    status = _status(path)
    try:
        with open(path, "rb") as file:
            return Origin(*status, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error


def _status(path: Path) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _read(path: Path) -> tuple[dict[str, Origin], bool]:
    """The origins by the images' names, and whether the last line is unfinished."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    found = {}
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            name = str(entry.pop("name"))
            found[name] = Origin(**entry)
        except (ValueError, TypeError, AttributeError, KeyError):
            continue
    return found, bool(text) and not text.endswith("\n")
