"""Folders of predicted label maps and of true ones: which files belong together, their counts.

Files of Cityscapes are matched as the official evaluation does it: by city, sequence and frame,
in whatever sub-folder they are. Every file has to have its partner.
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dasac_jax.data import finding, labels
from dasac_jax.data.decoding import read_ids
from dasac_jax.data.palettes import Palettes
from dasac_jax.errors import UserError
from dasac_jax.evaluation import label_kinds
from dasac_jax.evaluation.label_kinds import CITYSCAPES, LARGEST_LABEL_ID, TRAIN
from dasac_jax.evaluation.metrics import values_together
from dasac_jax.files import CITYSCAPES_LABEL

_FRAME = re.compile(r"([^_]+_\d{6}_\d{6})(?:_.*)?")
# Cityscapes ships several files for a frame. The first of these endings that a folder has is that
# of its true label maps.
_TRUTH = {
    TRAIN: ("_gtFine_labelTrainIds", CITYSCAPES_LABEL),
    CITYSCAPES: (CITYSCAPES_LABEL,),
}


class Pair(NamedTuple):
    """A prediction's file and that of its truth."""

    prediction: Path
    truth: Path


def match(predictions: Path, truth: Path, *, truth_ids: str = TRAIN) -> list[Pair]:
    """The PNG files of two folders and all folders below, in pairs, in the order of the truth.

    Names that begin like Cityscapes' (`<city>_<sequence>_<frame>`) belong together by this
    beginning. Others belong together by their whole name, or, where a folder has a name twice, by
    their path below the folder. Suffixes count in any case, links are followed, and a warning says
    how many pictures are no PNG. Of the files that Cityscapes ships for a frame the one with label
    ids is the truth (with train ids `…_labelTrainIds.png`, where there are such). Hidden files are
    left out: unfinished ones are hidden.

    Raises UserError for folders that are missing or hold no image, for two files of one name, and
    for the first file without a partner on either side.
    """
    given, wanted = finding.label_maps(predictions), finding.label_maps(truth)
    for ending in _TRUTH[truth_ids]:
        chosen = [path for path in wanted if path.stem.endswith(ending)]
        if chosen:
            wanted = chosen
            break
    by_path = any(len({p.stem for p in paths}) < len(paths) for paths in (given, wanted))
    predicted_files = _keyed(given, predictions, by_path, "predictions")
    true_files = _keyed(wanted, truth, by_path, "truths")
    _check_partners(true_files, predicted_files, "prediction", predictions)
    _check_partners(predicted_files, true_files, "truth", truth)
    return [Pair(predicted_files[key], path) for key, path in true_files.items()]


def confusion(
    pairs: Sequence[Pair],
    num_classes: int,
    *,
    ids: str = TRAIN,
    truth_ids: str = TRAIN,
    threads: int | None = None,
    update: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Counts (C, C + 1) int64 over all pairs, the last column being predictions of no class.

    ids, truth_ids: "train" (0..C-1, or 255 for no class) or "cityscapes" (0..33, of which those
    that are not evaluated become 255): what predictions and truth hold. threads: how many read
    and count, by default one for each CPU. update: called with the number of pairs done.

    A few images are in memory at a time, however many there are. Raises UserError naming the
    first file that cannot be read as a label map (see `decoding.read_ids`), holds another value, or
    differs from its partner in size; and where `label_kinds.check` finds that a score would mean
    nothing.
    """

    palettes, true_palettes = Palettes(), Palettes()

    def count(pair: Pair) -> np.ndarray:
        predicted = _read(pair.prediction, ids, num_classes, "--ids", palettes)
        truth = _read(pair.truth, truth_ids, num_classes, "--truth-ids", true_palettes)
        if predicted.shape != truth.shape:
            raise UserError(
                f"prediction {pair.prediction} has {_size(predicted)} pixels, "
                f"its truth {pair.truth} has {_size(truth)}: sizes have to agree"
            )
        return values_together(truth, predicted)

    total = np.zeros((256, 256), np.int64)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # In order, so that of several bad files it is always the same that is named.
        for done, counts in enumerate(pool.map(count, pairs), start=1):
            total += counts
            if update is not None:
                update(done)
    kinds = label_kinds.Kinds(ids, truth_ids)
    label_kinds.check(total, kinds, num_classes, [pair.truth.name for pair in pairs])
    return label_kinds.counts(total, kinds, num_classes)


def _keyed(paths: Sequence[Path], folder: Path, by_path: bool, kind: str) -> dict[str, Path]:
    """The files by their key, which is equal for a prediction and its truth."""
    found: dict[str, Path] = {}
    for path in paths:
        frame = _FRAME.fullmatch(path.stem)
        whole = str(path.relative_to(folder).with_suffix("")) if by_path else path.stem
        key = frame[1] if frame else whole
        if key in found:
            raise UserError(f"two {kind} of {key}: {found[key]} and {path}; remove one of them")
        found[key] = path
    return found


def _check_partners(
    needing: dict[str, Path], partners: dict[str, Path], kind: str, folder: Path
) -> None:
    alone = [key for key in needing if key not in partners]
    if alone:
        raise UserError(
            f"{len(alone)} of {len(needing)} files have no {kind} in {folder}, "
            f"first: {needing[alone[0]]} (looked for by {alone[0]!r})"
        )


def _read(path: Path, ids: str, num_classes: int, flag: str, palettes: Palettes) -> np.ndarray:
    """A label file's values, (h, w) uint8, all of them possible ones."""
    stored = read_ids(path, palettes)
    if ids == CITYSCAPES:
        if stored.max() > LARGEST_LABEL_ID:
            raise UserError(
                f"label file {path} holds {stored.max()}, which is no Cityscapes id "
                f"(0..{LARGEST_LABEL_ID}); if these are train ids, give {flag} train"
            )
        return stored
    beyond = stored[(stored >= num_classes) & (stored != labels.IGNORE)]
    if beyond.size:
        raise UserError(
            f"label file {path} holds {beyond[0]}, which is no train id of {num_classes} classes "
            f"(0..{num_classes - 1} or 255); if these are Cityscapes ids, "
            f"give {flag} cityscapes"
        )
    return stored


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"
