"""Cityscapes' classes: one table of names, ids in label files, train ids and colours.

Networks and losses use the train ids 0 to 18. The published label files hold Cityscapes ids (which
GTA5 uses too) or SYNTHIA ids; the preparation of the data converts both to train ids. A run may
have its own classes instead, see `dasac_jax.data.classes`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.image.label_values import IGNORE


class Class(NamedTuple):
    """One class: its name, id in original label files, train id and RGB colour."""

    name: str
    label_id: int
    train_id: int
    color: tuple[int, int, int]


CLASSES: tuple[Class, ...] = (
    Class("road", 7, 0, (128, 64, 128)),
    Class("sidewalk", 8, 1, (244, 35, 232)),
    Class("building", 11, 2, (70, 70, 70)),
    Class("wall", 12, 3, (102, 102, 156)),
    Class("fence", 13, 4, (190, 153, 153)),
    Class("pole", 17, 5, (153, 153, 153)),
    Class("traffic light", 19, 6, (250, 170, 30)),
    Class("traffic sign", 20, 7, (220, 220, 0)),
    Class("vegetation", 21, 8, (107, 142, 35)),
    Class("terrain", 22, 9, (152, 251, 152)),
    Class("sky", 23, 10, (70, 130, 180)),
    Class("person", 24, 11, (220, 20, 60)),
    Class("rider", 25, 12, (255, 0, 0)),
    Class("car", 26, 13, (0, 0, 142)),
    Class("truck", 27, 14, (0, 0, 70)),
    Class("bus", 28, 15, (0, 60, 100)),
    Class("train", 31, 16, (0, 80, 100)),
    Class("motorcycle", 32, 17, (0, 0, 230)),
    Class("bicycle", 33, 18, (119, 11, 32)),
)

NUM_CLASSES = len(CLASSES)

CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)

SYNTHIA_TO_TRAIN: dict[int, int] = {
    1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18,
    12: 17, 15: 6, 16: 9, 17: 12, 18: 14, 19: 15, 20: 16, 21: 3,
}  # fmt: skip
"""SYNTHIA-RAND-CITYSCAPES class id -> train id."""

SYNTHIA_LEFT_OUT: tuple[int, ...] = (9, 14, 16)
"""Train ids (terrain, truck, train) left out of the mean with SYNTHIA: 16 classes remain."""

SYNTHIA_LEFT_OUT_13: tuple[int, ...] = (3, 4, 5, 9, 14, 16)
"""As above, and wall, fence and pole: 13 classes remain, whose mean some papers give."""


def table(mapping: Mapping[int, int]) -> np.ndarray:
    """(256,) uint8: what `mapping` gives for each label value 0 to 255, IGNORE for other values."""
    ids = np.full(256, IGNORE, np.uint8)
    for key, value in mapping.items():
        ids[key] = value
    return ids


_TRAIN_OF_LABEL = table({c.label_id: c.train_id for c in CLASSES})
_TRAIN_OF_SYNTHIA = table(SYNTHIA_TO_TRAIN)
_LABEL_OF_TRAIN = table({c.train_id: c.label_id for c in CLASSES})
_LABEL_OF_TRAIN[IGNORE] = 0  # Cityscapes' "unlabeled", which maps back to IGNORE


def _look_up(found: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`found[ids]` for any integer dtype, IGNORE for ids outside 0 to 255."""
    ids = np.asarray(ids)
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"label ids must be integers, got {ids.dtype}")
    if ids.dtype == np.uint8:
        return found[ids]
    known = (ids >= 0) & (ids < found.size)
    return np.where(known, found[np.where(known, ids, 0)], IGNORE).astype(np.uint8)


def train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Cityscapes or GTA5 label ids, any shape and integer dtype -> uint8 train ids, unknown 255."""
    return _look_up(_TRAIN_OF_LABEL, label_ids)


def synthia_train_ids(synthia_ids: np.ndarray) -> np.ndarray:
    """SYNTHIA ids, any shape and integer dtype -> uint8 train ids, unknown ids become 255."""
    return _look_up(_TRAIN_OF_SYNTHIA, synthia_ids)


def label_ids(train_ids: np.ndarray) -> np.ndarray:
    """uint8 train ids -> uint8 Cityscapes label ids; 255 becomes 0 ("unlabeled").

    The evaluation server of Cityscapes expects these ids. Raises UserError for any other value.
    """
    ids = np.asarray(train_ids)
    unknown = ~(((ids >= 0) & (ids < NUM_CLASSES)) | (ids == IGNORE))
    if unknown.any():
        value = int(ids[unknown].flat[0])
        raise UserError(f"{value} is no train id: 0..{NUM_CLASSES - 1} or {IGNORE} expected")
    return _look_up(_LABEL_OF_TRAIN, ids)


def palette(classes: Sequence[Class] = CLASSES) -> np.ndarray:
    """(256, 3) uint8 RGB colour of every train id; black for ignored and unused ids."""
    colors = np.zeros((256, 3), np.uint8)
    for entry in classes:
        colors[entry.train_id] = entry.color
    return colors
