"""Read the files of a data set from ArrayRecord files, instead of from folders."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import absl.logging

from dasac_jax.data.tfds import sets
from dasac_jax.errors import UserError

_LOG = logging.getLogger(__name__)

_READ_ERRORS = (OSError, RuntimeError, ValueError, IndexError)
"""What the readers raise for files that are missing, cut off or damaged."""

_VERSION_FILE = "dataset_info.json"


class _NamedBytes(io.BytesIO):
    """A file in memory, named in error messages by where it was read from."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name

    def __str__(self) -> str:
        return self._name


@dataclass(frozen=True)
class Records:
    """One split of a stored set. pairs: image and label paths, in the order of the records.

    places: path -> number of the record and "image" or "label". data: random access to the records'
    encoded images and labels. size: (h, w) of all files, None where they were stored unchanged.
    """

    folder: Path
    split: str
    size: sets.Size | None
    pairs: tuple[sets.Pair, ...]
    places: Mapping[str, tuple[int, str]]
    data: Any

    def names_below(self, folder: str) -> list[str]:
        """The images' names below a folder of the data root, in order."""
        start = f"{folder}/"
        return [image.removeprefix(start) for image, _ in self.pairs if image.startswith(start)]

    def check(self, role: str, pairs: Sequence[sets.Pair]) -> None:
        """Raise UserError naming the first file of `pairs` that is not stored."""
        absent = [path for pair in pairs for path in pair if path and path not in self.places]
        if absent:
            raise UserError(
                f"{len(absent)} files of {role} are not in {self.folder} ({self.split}), "
                f"first: {absent[0]}; build it anew, or leave data.tfds empty"
            )

    def open(self, path: str) -> io.BytesIO:
        """The encoded file that was stored from `path`. Raises UserError when it is unreadable."""
        index, part = self.places[path]
        where = f"{path} (record {index} of {self.folder}, {self.split})"
        try:
            return _NamedBytes(self.data[index][part], where)
        except _READ_ERRORS as error:
            raise UserError(f"cannot read {where}: {first_line(error)}") from error


def open_records(data_config: Any, role: str) -> Records | None:
    """As `find`; where `data.tfds` is set, the log says once where files are read from."""
    found = find(data_config, role)
    if getattr(data_config, "tfds", ""):
        _log_once(f"{role}: read from {found.folder if found else 'the folders'}")
    return found


@functools.cache  # a run opens its sources many times
def _log_once(text: str) -> None:
    _LOG.info(text)


def find(data_config: Any, role: str) -> Records | None:
    """The stored set below `data.tfds` with a role's files; None where they are read from folders.

    A set that was resized to the role's size is preferred to one of unchanged files. The validation
    images, "val", are scored at their own size and therefore read from unchanged files only.
    Raises UserError where `data.tfds` holds no set at all, or the packages to read it are missing.
    """
    if not getattr(data_config, "tfds", ""):
        return None
    if data_config.source not in sets.SPLITS:
        raise UserError(
            f"config.data.tfds is for the sets {', '.join(sets.SPLITS)}: leave it empty with "
            f"data.source = {data_config.source!r}"
        )
    store = Path(data_config.tfds)
    if not any(store.glob(f"prepared_*/*/*/{_VERSION_FILE}")):
        raise UserError(
            f"config.data.tfds is {str(store)!r}, which holds no data set: "
            "scripts/build_tfds.py makes them"
        )
    of_source = role.startswith("source")
    name, split = (data_config.source, "train") if of_source else ("cityscapes", "train")
    size = tuple(data_config.source_size if of_source else data_config.target_size)
    sizes = [size, None]
    if role == "val":
        split, sizes = "val", [None]
    for stored in sizes:
        folder = sets.folder(store, name, stored)
        if (folder / _VERSION_FILE).is_file():
            found = _open(folder, split, stored)
            if found is not None:
                return found
    return None


def load_tfds() -> Any:
    """The module tensorflow_datasets. Raises UserError where it is not installed."""
    try:
        import importlib_resources  # noqa: F401 - TFDS needs it without declaring it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"TFDS needs the Python package {error.name}: pip install 'dasac-jax[tfds]'"
        ) from error
    return tfds


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the messages that TFDS logs for each of its steps."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _open(folder: Path, split: str, size: sets.Size | None) -> Records | None:
    """A split of the set in `folder`, None where it was built without this split."""
    tfds = load_tfds()
    try:
        with quiet():
            builder = tfds.builder_from_directory(folder)
        if split not in builder.info.splits:
            return None
        pairs = tuple((image, label) for image, label in builder.info.metadata["pairs"][split])
        encoded = {part: tfds.decode.SkipDecoding() for part in ("image", "label")}
        data = builder.as_data_source(split, decoders=encoded)
        count = len(data)
    except (*_READ_ERRORS, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read the data set {folder}: {first_line(error)}; remove the folder and build "
            "it anew"
        ) from error
    if count != len(pairs):
        raise UserError(
            f"{folder} holds {count} records of {split}, but lists {len(pairs)}: remove the folder "
            "and build it anew"
        )
    places = {image: (index, "image") for index, (image, _) in enumerate(pairs)}
    places |= {label: (index, "label") for index, (_, label) in enumerate(pairs) if label}
    return Records(folder, split, size, pairs, places, data)


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the call stacks that some libraries append."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
