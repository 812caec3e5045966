"""Check a prepared data root: which files are there, missing, or unreadable.

Every image and label is decoded as in training, and the checksums inside its file are compared.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dasac_jax.data import finding, labels
from dasac_jax.data.decoding import DECODE_ERRORS, read_ids, read_rgb, same_proportions
from dasac_jax.data.label_survey import MOSTLY_IGNORED
from dasac_jax.data.pairs import STRETCH
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.preparation.execute import in_threads
from dasac_jax.data.preparation.plan import (
    CITYSCAPES_IMAGES,
    CITYSCAPES_LABELLED,
    GTA5_NUMBERS,
    SYNTHIA_NUMBERS,
    missing_numbers,
)
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, CITYSCAPES_LABEL, UNFINISHED

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Part:
    """A set, or one split of it: its image and label files, by the name that both have in common.

    folders: of the images and of the labels. labelled: whether the set has labels.
    may_lack_labels: whether training can use it without them. sizes_agree: whether a label must
    have its image's size. notes: what is worth knowing, in words.
    """

    name: str
    folders: tuple[Path, Path]
    images: dict[str, Path]
    labels: dict[str, Path]
    labelled: bool = True
    may_lack_labels: bool = False
    sizes_agree: bool = True
    notes: tuple[str, ...] = ()


@dataclass
class Survey:
    """What was found in a part.

    counts: (256,) int64 pixels by label value. faults: kind -> files and what is wrong with them;
    training would fail on these. notes: what is worth knowing, in words.
    """

    name: str
    images: int
    labels: int
    image_sizes: Counter = field(default_factory=Counter)
    label_sizes: Counter = field(default_factory=Counter)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


NO_LABEL, NO_IMAGE = "images without label", "labels without image"
UNREADABLE, FOREIGN = "unreadable files", "labels with other values"
SIZES, NOTHING = "pairs of different size", "empty folders"
IGNORED = "mostly ignored labels"
FAULTS = (NO_LABEL, NO_IMAGE, UNREADABLE, FOREIGN, SIZES, IGNORED, NOTHING)
"""The kinds of faults."""


class _Decoded(NamedTuple):
    """An image and its label: sizes, (256,) pixels by label value, and errors in words."""

    image_size: Size | None
    label_size: Size | None
    counts: np.ndarray | None
    errors: tuple[str, ...]


def find_parts(root: Path) -> list[Part]:
    """The sets and splits that have a folder below `root`. Raises UserError if there is none."""
    parts = []
    if (root / "cityscapes").is_dir():
        parts += [_cityscapes(root / "cityscapes", split) for split in CITYSCAPES_IMAGES]
    if (root / "game").is_dir():
        parts.append(_numbered("gta5", root / "game", "images", GTA5_NUMBERS, 5))
    if (root / "synthia").is_dir():
        parts.append(_numbered("synthia", root / "synthia", "RGB", SYNTHIA_NUMBERS, 7))
    if not parts:
        raise UserError(
            f"{root} holds none of cityscapes, game and synthia: give the folder with the prepared "
            "data by --root"
        )
    return parts


def survey(part: Part, *, jobs: int = 1, update: Callable[[int], None] | None = None) -> Survey:
    """Decode all files of a part with `jobs` threads.

    update: called with the number of names that are done.
    """
    found = Survey(part.name, len(part.images), len(part.labels), notes=list(part.notes))
    _compare_names(part, found)
    names, palettes = sorted(part.images.keys() | part.labels.keys()), Palettes()

    def decode(name: str) -> _Decoded:
        return _decode_pair(part.images.get(name), part.labels.get(name), palettes)

    differing, faulty = [], []
    for name, pair in zip(names, in_threads(decode, names, jobs, update), strict=True):
        for error in pair.errors:
            found.faults.setdefault(UNREADABLE, []).append(error)
        if pair.image_size:
            found.image_sizes[pair.image_size] += 1
        if pair.label_size:
            found.label_sizes[pair.label_size] += 1
            found.counts += pair.counts
            wrong = [v for v in np.flatnonzero(pair.counts).tolist() if not _is_train_id(v)]
            if wrong:
                values = ", ".join(map(str, wrong[:5])) + (" …" if len(wrong) > 5 else "")
                found.faults.setdefault(FOREIGN, []).append(f"{part.labels[name]}: {values}")
        if pair.image_size and pair.label_size and pair.image_size != pair.label_size:
            sizes = f"image {size_text(pair.image_size)}, label {size_text(pair.label_size)}"
            stretch = 0.0 if part.sizes_agree else STRETCH[part.name]
            fits = same_proportions(pair.image_size, pair.label_size, stretch)
            (faulty if part.sizes_agree or not fits else differing).append(f"{name} ({sizes})")
    ignored = share(found.counts)[labels.IGNORE]
    if ignored > MOSTLY_IGNORED:
        found.faults[IGNORED] = [
            f"{100 * ignored:.1f} % of the pixels in {part.folders[1]}, as where train ids were "
            "taken for original labels; make them again from the published files"
        ]
    if faulty:
        found.faults[SIZES] = faulty
    if differing:
        found.notes.append(
            f"{len(differing)} {SIZES}, brought to one when they are read: {shortened(differing)}"
        )
    return found


def share(counts: np.ndarray) -> np.ndarray:
    """(256,) pixels by value -> (256,) shares that sum to 1, or zeros where there are none."""
    return counts / max(int(counts.sum()), 1)


def size_text(size: Size) -> str:
    """Width and height as in "2048×1024"."""
    return f"{size[1]}×{size[0]}"


def shortened(items: list[str], most: int = 10) -> str:
    """The first `most` items, separated by commas, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _is_train_id(value: int) -> bool:
    return value < labels.NUM_CLASSES or value == labels.IGNORE


def _compare_names(part: Part, found: Survey) -> None:
    """Add to `found` the images without labels and the labels without images."""
    if not part.images and (part.labels or part.labelled):
        found.faults[NOTHING] = [f"no images in {part.folders[0]}"]
    if not part.labels and part.images and part.labelled:
        if part.may_lack_labels:
            found.notes.append(
                f"no labels in {part.folders[1]}: data.selection_images has to be 0 then"
            )
        else:
            found.faults[NOTHING] = [
                f"no labels in {part.folders[1]}: scripts/prepare_data.py makes them"
            ]
    elif part.labelled:
        _add(found, NO_LABEL, part.images.keys() - part.labels.keys())
    if part.images:
        _add(found, NO_IMAGE, part.labels.keys() - part.images.keys())


def _add(found: Survey, kind: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        found.faults[kind] = names


def _decode_pair(image: Path | None, label: Path | None, palettes: Palettes) -> _Decoded:
    errors, image_size, ids = [], None, None
    try:
        if image is not None:
            image_size = _image_size(image)
    except UserError as error:
        errors.append(str(error))
    try:
        if label is not None:
            ids = read_ids(label, palettes)
            _verify(label, "label file")
    except UserError as error:
        errors.append(str(error))
    counts = None if ids is None else np.bincount(ids.ravel(), minlength=256)
    return _Decoded(image_size, None if ids is None else ids.shape, counts, tuple(errors))


def _image_size(path: Path) -> Size:
    """(h, w) of an image, which is decoded whole. Raises UserError where this fails."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"cannot read image {path}: it is a link to {path.readlink()}, not there")
    size = read_rgb(path).shape[:2]
    _verify(path, "image")
    return size


def _verify(path: Path, kind: str) -> None:
    """Raise UserError where checksums, which decoding ignores, are wrong or the end is missing."""
    try:
        with Image.open(path) as image:
            image.verify()
    except DECODE_ERRORS as error:
        raise UserError(f"{kind} {path} is damaged or cut off: {error}") from error


def _cityscapes(folder: Path, split: str) -> Part:
    folders = folder / "leftImg8bit" / split, folder / "gtFine2" / split
    images, others = _by_frame(folders[0], CITYSCAPES_IMAGE)
    frames, other_labels = _by_frame(folders[1], CITYSCAPES_LABEL)
    published = CITYSCAPES_IMAGES[split]
    note = f"{len(images)} of {published} published images"
    return Part(
        f"cityscapes {split}",
        folders,
        images,
        frames,
        labelled=split in CITYSCAPES_LABELLED,
        may_lack_labels=split == "train",
        notes=(
            *_unfinished(folders, "*/"),
            *([note] if len(images) != published else []),
            *finding.left_out(others + other_labels, "not called as training reads them"),
        ),
    )


def _by_frame(folder: Path, ending: str) -> tuple[dict[str, Path], list[Path]]:
    """The PNGs of a split by city and frame, and all other pictures."""
    paths, others = finding.pngs(folder, 1, ending)
    return {f"{path.parent.name}/{path.stem.removesuffix(ending)}": path for path in paths}, others


def _numbered(name: str, folder: Path, images: str, published: range, digits: int) -> Part:
    folders = folder / images, folder / "labels_cs"
    (images_found, others), (labels_found, other_labels) = (
        finding.pngs(place, 0) for place in folders
    )
    found, label_paths = (
        {path.stem: path for path in paths} for paths in (images_found, labels_found)
    )
    stems = [stem for stem in found.keys() | label_paths.keys() if stem.isdecimal()]
    return Part(
        name,
        folders,
        found,
        label_paths,
        sizes_agree=name != "gta5",  # as published, some of its images and labels differ in size
        notes=(
            *_unfinished(folders, ""),
            *missing_numbers(stems, published, digits),
            *finding.left_out(others + other_labels, "no PNG of the folder itself"),
        ),
    )


def _unfinished(folders: Iterable[Path], below: str) -> tuple[str, ...]:
    paths = [path for place in folders for path in place.glob(f"{below}.*.png{UNFINISHED}")]
    if not paths:
        return ()
    return (f"{len(paths)} unfinished files, first {paths[0]}: prepare the set again",)
