"""Which files of a prepared data root make up each set, split by split."""

from __future__ import annotations

from pathlib import Path

from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, cityscapes_label

SPLITS = {"cityscapes": ("train", "val", "test"), "gta5": ("train",), "synthia": ("train",)}
"""The splits of each set; a source is one split, as it is divided when it is read."""

FULL = "full"
"""Name of a set that is stored as the files are."""

VERSION = "1.0.0"

Size = tuple[int, int]
Pair = tuple[str, str | None]

_SOURCES = {
    "gta5": ("game/images", "game/labels_cs"),
    "synthia": ("synthia/RGB", "synthia/labels_cs"),
}


def storage_name(size: Size | None) -> str:
    """How a set is called whose files are brought to `size` (h, w), as "512x1024"."""
    return FULL if size is None else f"{size[0]}x{size[1]}"


def folder(store: Path, name: str, size: Size | None) -> Path:
    """Where the set `name` lies below the folder `store` of all."""
    return store / f"prepared_{name}" / storage_name(size) / VERSION


def find_pairs(root: Path, name: str, split: str) -> tuple[Pair, ...]:
    """Image and label paths below `root`, sorted as training sorts them; None for no label.

    Hidden files are unfinished ones. Raises UserError where there is no image.
    """
    if name == "cityscapes":
        images, pattern = f"cityscapes/leftImg8bit/{split}", f"*/*{CITYSCAPES_IMAGE}.png"
        labels = f"cityscapes/gtFine2/{split}"
    else:
        (images, labels), pattern = _SOURCES[name], "*.png"
    paths = sorted(p for p in (root / images).glob(pattern) if not p.name.startswith("."))
    if not paths:
        raise UserError(
            f"folder {root / images} holds no images {pattern}: "
            "scripts/prepare_data.py puts them there"
        )
    pairs = []
    for path in paths:
        place = path.relative_to(root / images).as_posix()
        label = f"{labels}/{cityscapes_label(place)}"
        has_label = split != "test" and (root / label).is_file()
        pairs.append((f"{images}/{place}", label if has_label else None))
    return tuple(pairs)
