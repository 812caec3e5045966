"""Label files as the data sets ship them, read as train ids.

Values that the originals cannot hold are an error. Ids that nothing knows would become ignored
pixels, so that labels which are train ids already would turn into other classes and into nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dasac_jax.data import labels
from dasac_jax.data.decoding import read_ids
from dasac_jax.data.label_survey import placeholders, shares, spread
from dasac_jax.data.palettes import Palettes
from dasac_jax.data.png16 import read_sixteen_bits
from dasac_jax.errors import UserError

_MOST_FILES = 32  # that are looked at before anything is prepared
_TRAIN_IDS = range(labels.NUM_CLASSES)
# Originals have few pixels of no class, 12 % in Cityscapes. Taken for originals, train ids have
# more: 0, the road, stands for none there.
_SUSPICIOUS_SHARE = 0.2


class Kind(NamedTuple):
    """How a data set stores labels.

    read: gives a file's ids, (h, w) of an integer type; its second argument are the palettes of the
    set's files, see `decoding.read_ids`. largest: id that is published. train_ids:
    makes train ids of them.
    """

    name: str
    read: Callable[[Path, Palettes | None], np.ndarray]
    largest: int
    train_ids: Callable[[np.ndarray], np.ndarray]


CITYSCAPES = Kind("Cityscapes", read_ids, 33, labels.train_ids)
GTA5 = Kind("GTA5", read_ids, 34, labels.train_ids)  # 34 is the license plate
SYNTHIA = Kind(
    "SYNTHIA", lambda path, _: read_sixteen_bits(path)[:, :, 0], 22, labels.synthia_train_ids
)


def read(path: Path, kind: Kind, palettes: Palettes | None = None) -> np.ndarray:
    """An original label file -> (h, w) uint8 train ids.

    palettes: those of the set, see `decoding.read_ids`. Raises UserError naming the file where it
    cannot be read, or holds a value that files of this
    kind cannot hold.
    """
    ids = kind.read(path, palettes)
    beyond = ids[ids > kind.largest]
    if beyond.size:
        looks = _looks_like(_counts(ids), kind)
        raise UserError(
            f"label file {path} holds {beyond.flat[0]}, which is no id of {kind.name} "
            f"(0..{kind.largest}){f': {looks}' if looks else ''}; give the published files"
        )
    return kind.train_ids(ids)


def check(paths: Sequence[Path], kind: Kind) -> None:
    """Raise UserError where a sample of label files, taken together, is not of this kind.

    Files that cannot be read are passed over, since the preparation names each of them.
    """
    counts, seen = np.zeros(256, np.int64), 0
    for index in spread(len(paths), _MOST_FILES):
        try:
            counts += _counts(kind.read(paths[index], None))
        except UserError:
            continue
        seen += 1
    looks = _looks_like(counts, kind)
    if looks:
        raise UserError(
            f"{len(paths)} label files such as {paths[0]} are not those of {kind.name}: {looks}; "
            f"{seen} of them hold {shares(counts)}: give the published files"
        )


def _counts(ids: np.ndarray) -> np.ndarray:
    """(256,) int64 pixels by value, larger ones counting as 255."""
    return np.bincount(np.minimum(ids, 255).ravel(), minlength=256)


def _looks_like(counts: np.ndarray, kind: Kind) -> str | None:
    """What files with these pixels by value look like, where it is not what they should be."""
    values = set(np.flatnonzero(counts).tolist())
    if not values:
        return None
    if kind is not SYNTHIA and placeholders(values):
        return "they hold no class, as the placeholders of a test split"
    if not values - {labels.IGNORE} <= set(_TRAIN_IDS):
        return None
    as_original = kind.train_ids(np.arange(256))
    ignored = counts[as_original == labels.IGNORE].sum() / counts.sum()
    if labels.IGNORE in values or ignored > _SUSPICIOUS_SHARE:
        return "they look like train ids (0..18, and 255 for ignored), that is, prepared already"
    return None
