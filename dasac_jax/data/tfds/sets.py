"""The stored sets: their splits, names and folders."""

from __future__ import annotations

from pathlib import Path

SPLITS = {"cityscapes": ("train", "val", "test"), "gta5": ("train",), "synthia": ("train",)}
"""The splits of each set. A source is stored as one split and divided when it is read."""

FULL = "full"
"""Name of a set whose files are stored without resizing them."""

VERSION = "1.0.0"

Size = tuple[int, int]
"""Height and width in pixels."""

Pair = tuple[str, str | None]
"""Image and label path below the data root; None where there is no label."""


def storage_name(size: Size | None) -> str:
    """The name of a set resized to `size` (h, w), such as "512x1024"; FULL for None."""
    return FULL if size is None else f"{size[0]}x{size[1]}"


def folder(store: Path, name: str, size: Size | None) -> Path:
    """Where the set `name` lies below the folder `store` of all."""
    return store / f"prepared_{name}" / storage_name(size) / VERSION
