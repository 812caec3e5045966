"""Image and label pairs with random access, read one at a time and resized to one size."""

import dataclasses
import os
from typing import Any

import numpy as np
from PIL import Image

from dasac_jax.data import classes, labels
from dasac_jax.data.decoding import read_ids, read_rgb, resized, same_proportions, turned_hint
from dasac_jax.data.palettes import Palettes
from dasac_jax.errors import UserError

Pair = tuple[str, str | None]
"""Image and label path relative to the data root; None where labels are not to be read."""

STRETCH = {"gta5": 0.05}
"""By which share the proportions of image and label differ in a set as it was published."""

PREPARED = "made by scripts/prepare_data.py"


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Image and label pairs below `root`, all resized to `size` (h, w).

    Item i is `{"image": (h, w, 3) uint8 RGB, "label": (h, w) uint8 train ids, "name": str}`; the
    label is 255 everywhere for pairs without one, and the name is the image's path below `root`.
    Both are turned as they are displayed. Files of other sizes are resized by Pillow: images
    bilinear with antialiasing, labels nearest.

    name: of the source in error messages. id_map: pairs of a label value in the files and its train
    id, all other values being ignored; empty where the files hold train ids. records: the
    `tfds.records.Records` that hold the files, None where they lie below `root`. stretch: by which
    share the proportions of image and label may differ, see STRETCH. palettes: of the label files
    that have been read.

    Reading an item raises UserError naming file and item where a file cannot be read (see
    `decoding.read_ids` for labels) or, without id_map, a label value is neither below `num_classes`
    nor 255, and where image and label have other proportions. Many threads may read at once.
    """

    root: str
    pairs: tuple[Pair, ...]
    size: tuple[int, int]
    name: str
    num_classes: int = labels.NUM_CLASSES
    id_map: classes.IdMap = ()
    records: Any = None
    stretch: float = 0.0
    palettes: Palettes = dataclasses.field(default_factory=Palettes, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.pairs[index]
        try:
            pixels = read_rgb(self.file(image))
            if label is None:
                ids = np.full(self.size, labels.IGNORE, np.uint8)
            else:
                ids = self._read_label(label)
                self._check_proportions(image, pixels.shape[:2], label, ids.shape)
        except UserError as error:
            raise UserError(f"{error} (item {index} of {self.name})") from error
        if ids.shape != self.size:
            ids = np.array(Image.fromarray(ids).resize(self.size[::-1], Image.Resampling.NEAREST))
        return {"image": resized(pixels, self.size), "label": ids, "name": image}

    @property
    def names(self) -> tuple[str, ...]:
        """The image paths in order, as in list files."""
        return tuple(image for image, _ in self.pairs)

    def file(self, path: str) -> Any:
        """What to open for one of the pairs' paths: a path, or a stored file in memory."""
        return self.records.open(path) if self.records else os.path.join(self.root, path)

    def label_values(self, index: int) -> np.ndarray:
        """(256,) int64: how many pixels of a pair's label file hold each value, before any id map.

        Raises UserError as reading the item does; the image is not opened.
        """
        path = self.file(self.pairs[index][1])
        try:
            ids = read_ids(path, self.palettes)
            if not self.id_map:
                self._check_train_ids(path, ids)
        except UserError as error:
            raise UserError(f"{error} (item {index} of {self.name})") from error
        return np.bincount(ids.ravel(), minlength=256)

    def _check_proportions(self, image, size, label, label_size) -> None:
        if not same_proportions(size, label_size, self.stretch):
            (height, width), (other_height, other_width) = size, label_size
            raise UserError(
                f"image {self.file(image)} has {width}×{height} pixels, its label "
                f"{self.file(label)} {other_width}×{other_height}: proportions have to agree"
                + turned_hint(self.file(image), size, label_size)
            )

    def _read_label(self, label: str) -> np.ndarray:
        """Train ids (h, w) uint8 of a label file at its own size."""
        path = self.file(label)
        ids = read_ids(path, self.palettes)
        if self.id_map:
            ids = labels.table(dict(self.id_map))[ids]
        self._check_train_ids(path, ids)
        return ids

    def _check_train_ids(self, path: Any, ids: np.ndarray) -> None:
        """Raise UserError where a label file holds another value than a train id or 255."""
        # In uint8, 255 + 1 is 0: one comparison covers the classes and the ignored pixels.
        if ids.size and (ids + np.uint8(1)).max() > self.num_classes:
            value = int(ids[(ids >= self.num_classes) & (ids != labels.IGNORE)][0])
            raise UserError(
                f"label file {path} contains {value}, which is no train id "
                f"(0..{self.num_classes - 1} or {labels.IGNORE}): are these unprepared labels? "
                f"({PREPARED}; data.classes.*_ids map those of your own data)"
            )
