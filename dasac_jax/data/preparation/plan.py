"""Which files of the data sets' archives are needed, and where they belong below the data root."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dasac_jax.data import finding
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.preparation import original_labels
from dasac_jax.data.preparation.original_labels import Kind
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, CITYSCAPES_LABEL, cityscapes_label

GTA5_NUMBERS = range(1, 24967)
"""The numbers of the published GTA5 images. Copies of the set lack some, not always the same."""

GTA5_SIZE = (1052, 1914)
"""(h, w) that GTA5's images and labels are brought to for training."""

SYNTHIA_NUMBERS = range(9400)
"""The numbers of the published SYNTHIA-RAND-CITYSCAPES images."""

CITYSCAPES_IMAGES = {"train": 2975, "val": 500, "test": 1525}
"""How many images each split of Cityscapes was published with."""

CITYSCAPES_LABELLED = ("train", "val")
"""The splits with labels. The files in gtFine/test are placeholders without classes."""

_MOST_RANGES = 100


@dataclass(frozen=True)
class Original:
    """An image with its label, and where both belong relative to the data root."""

    image: Path
    image_place: str
    label: Path | None = None
    label_place: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be prepared: `originals`, sorted.

    kind: how the label files are stored, None where none is converted. label_size: (h, w) that
    labels are resized to which differ in size from their image; None where this is an error. notes:
    what else was found, in words. palettes: of the label files that have been read.
    """

    name: str
    originals: tuple[Original, ...]
    kind: Kind | None
    label_size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    palettes: Palettes = field(default_factory=Palettes, compare=False, repr=False)


def plan_cityscapes(source: Path) -> Plan:
    """leftImg8bit and gtFine below `source`, or below folders called as their archives.

    Images without label are included, because training uses them. Raises UserError naming what is
    missing.
    """
    images = _folder(source, "leftImg8bit", "leftImg8bit_trainvaltest.zip")
    label_root = _folder(source, "gtFine", "gtFine_trainvaltest.zip")
    originals, notes = [], []
    for split, published in CITYSCAPES_IMAGES.items():
        found, others = finding.pngs(images / split, 1, CITYSCAPES_IMAGE)
        notes += finding.left_out(others, f"not called {split}/<city>/*{CITYSCAPES_IMAGE}.png")
        ids: dict[str, Path] = {}
        if split in CITYSCAPES_LABELLED:
            label_paths, _ = finding.pngs(label_root / split, 1, CITYSCAPES_LABEL)
            ids = {_place(path, label_root): path for path in label_paths}
        if len(found) != published:
            notes.append(f"{split}: {published} images were published, {len(found)} are here")
        unlabelled = []
        for image in found:
            place = _place(image, images)
            label_place = cityscapes_label(place)
            label = ids.pop(label_place, None)
            if label is None and split in CITYSCAPES_LABELLED:
                unlabelled.append(image.name)
            originals.append(
                Original(
                    image,
                    f"cityscapes/leftImg8bit/{place}",
                    label,
                    f"cityscapes/gtFine2/{label_place}" if label else None,
                )
            )
        notes += _left_over(f"{split}: images without label", unlabelled)
        notes += _left_over(
            f"{split}: labels without image, left out", [p.name for p in ids.values()]
        )
    if not originals:
        raise UserError(f"{images} holds no {{train,val,test}}/<city>/*_leftImg8bit.png")
    return Plan("cityscapes", tuple(originals), original_labels.CITYSCAPES, notes=tuple(notes))


def plan_gta5(source: Path) -> Plan:
    """images and labels below `source`, or below folders such as 01_images and 01_labels.

    Images and labels without each other are left out and noted. Raises UserError naming what is
    missing, and for a number that is there twice.
    """
    return _numbered(
        "gta5",
        _parts(source, "images"),
        _parts(source, "labels"),
        "game/images",
        GTA5_NUMBERS,
        digits=5,
        kind=original_labels.GTA5,
        label_size=GTA5_SIZE,
    )


def plan_synthia(source: Path) -> Plan:
    """RGB and GT/LABELS below `source` or below its folder RAND_CITYSCAPES.

    Images and labels without each other are left out and noted. Raises UserError naming what is
    missing.
    """
    below = source / "RAND_CITYSCAPES"
    top = below if below.is_dir() else source
    archive = "SYNTHIA_RAND_CITYSCAPES.rar"
    return _numbered(
        "synthia",
        [_folder(top, "RGB", archive)],
        [_folder(top, "GT/LABELS", archive)],
        "synthia/RGB",
        SYNTHIA_NUMBERS,
        digits=7,
        kind=original_labels.SYNTHIA,
    )


PLANS: Mapping[str, Callable[[Path], Plan]] = {
    "cityscapes": plan_cityscapes,
    "gta5": plan_gta5,
    "synthia": plan_synthia,
}
"""Finds the originals of each set in the folder of its unpacked archives."""


def _place(path: Path, folder: Path) -> str:
    """The path below a folder, its suffix in lower case, as prepared files are called."""
    return path.relative_to(folder).with_suffix(path.suffix.lower()).as_posix()


def ranges(numbers: Iterable[int], digits: int) -> str:
    """Sorted numbers as in "00003, 00007 to 00012", at most 100 such items and how many more."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    items = [
        f"{first:0{digits}d}" + (f" to {last:0{digits}d}" if last > first else "")
        for first, last in found
    ]
    more = items[_MOST_RANGES:]
    return ", ".join(items[:_MOST_RANGES]) + (f" and {len(more)} more" if more else "")


def missing_numbers(stems: Iterable[str], published: range, digits: int) -> list[str]:
    """A note on the published numbers that no file has; empty where all are there."""
    there = {int(stem) for stem in stems}
    absent = [number for number in published if number not in there]
    if not absent:
        return []
    return [f"{len(absent)} of {len(published)} numbers are missing: {ranges(absent, digits)}"]


def _numbered(
    name: str,
    image_folders: Sequence[Path],
    label_folders: Sequence[Path],
    place: str,
    published: range,
    *,
    digits: int,
    kind: Kind,
    label_size: tuple[int, int] | None = None,
) -> Plan:
    """The plan for a set in which an image and its label have the same number as their names."""
    images, misnamed = _by_number(image_folders, digits)
    label_paths, misnamed_labels = _by_number(label_folders, digits)
    both = sorted(images.keys() & label_paths.keys())
    if not both:
        raise UserError(
            f"{image_folders[0]} and {label_folders[0]} share no file called like "
            f"{published[0]:0{digits}d}.png: {len(images)} images, {len(label_paths)} labels"
        )
    notes = missing_numbers(images.keys() | label_paths.keys(), published, digits)
    notes += _left_over("images without label, left out", images.keys() - label_paths.keys())
    notes += _left_over("labels without image, left out", label_paths.keys() - images.keys())
    notes += _left_over(
        f"files not called by {digits} digits and .png, left out", misnamed + misnamed_labels
    )
    label_folder = Path(place).with_name("labels_cs").as_posix()
    originals = tuple(
        Original(
            images[stem], f"{place}/{stem}.png", label_paths[stem], f"{label_folder}/{stem}.png"
        )
        for stem in both
    )
    return Plan(name, originals, kind, label_size, tuple(notes))


def _by_number(folders: Sequence[Path], digits: int) -> tuple[dict[str, Path], list[str]]:
    """The PNGs by stem, and the names of other pictures and stems that are no such numbers."""
    found: dict[str, Path] = {}
    misnamed = []
    for folder in folders:
        paths, others = finding.pngs(folder, 0)
        misnamed += [path.name for path in others]
        for path in paths:
            if not re.fullmatch(rf"[0-9]{{{digits}}}", path.stem):
                misnamed.append(path.name)
            elif path.stem in found:
                raise UserError(
                    f"{path.name} is there twice: {found[path.stem]} and {path}; remove one"
                )
            else:
                found[path.stem] = path
    return found, misnamed


def _parts(source: Path, kind: str) -> list[Path]:
    """GTA5's folders of images or labels: one, or ten of the ten archives."""
    _check_folder(source)
    candidates = [source / kind, *sorted(source.glob(f"[0-9][0-9]_{kind}"))]
    found = [path / kind if (path / kind).is_dir() else path for path in candidates]
    found = [path for path in found if path.is_dir()]
    if not found:
        raise _missing_folder(
            source, kind, sorted(source.glob(f"*_{kind}.zip")), f"01_{kind}.zip …"
        )
    return found


def _folder(source: Path, name: str, archive: str) -> Path:
    """The folder `name` in `source`, or in a folder there that is named like the archive."""
    _check_folder(source)
    for path in (source / name, source / Path(archive).stem / name):
        if path.is_dir():
            return path
    packed = [path for path in source.iterdir() if path.stem == Path(archive).stem]
    raise _missing_folder(source, name, packed, archive)


def _check_folder(source: Path) -> None:
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give the one with the unpacked archives")


def _missing_folder(source: Path, name: str, packed: Sequence[Path], archive: str) -> UserError:
    if packed:
        return UserError(
            f"{source} has no folder {name}, but archives: unpack {packed[0].name}"
            + (f" and the {len(packed) - 1} others" if len(packed) > 1 else "")
            + " there first"
        )
    entries = sorted(path.name for path in source.iterdir())
    there = f"it holds {', '.join(entries[:5])}{' …' if len(entries) > 5 else ''}"
    return UserError(
        f"{source} has no folder {name}, which {archive} unpacks to: "
        f"{there if entries else 'it is empty'}"
    )


def _left_over(what: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"{len(names)} {what}: {', '.join(names[:10])}{more}"]
