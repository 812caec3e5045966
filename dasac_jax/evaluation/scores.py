"""Scores checkpoints on labelled images and folders of label maps: pixel counts, IoU, means.

Both give counts of one form, from which every number of the report follows.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from dasac_jax.data import sources
from dasac_jax.data.decoding import displayed_size, turned_hint
from dasac_jax.data.labels import CLASS_NAMES, SYNTHIA_LEFT_OUT, SYNTHIA_LEFT_OUT_13
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
from dasac_jax.evaluation import class_order, label_folders, scoring
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.files import PREDICTED_CITYSCAPES_IDS, PREDICTED_LABELS, PREDICTION_RECORD
from dasac_jax.inference import trained_network
from dasac_jax.reporting import tables
from dasac_jax.runtime import compiled_sizes, data_parallel, logs

# The folders in which `dasac_jax.predict` puts label maps of train ids and of Cityscapes ids.
_PREDICTED = {
    label_folders.TRAIN: PREDICTED_LABELS,
    label_folders.CITYSCAPES: PREDICTED_CITYSCAPES_IDS,
}
_HEADER_THREADS = 8  # that read the sizes of images
# Several checkpoints of one network are scored by one compiled program.
_scorer = functools.lru_cache(maxsize=1)(scoring.scorer)
_make_room = compiled_sizes.limiter()


@dataclass(frozen=True)
class Result:
    """What was counted for one network or one folder of predictions.

    counts: (C, C + 1) int64 pixels, rows truth, columns prediction, the last of them no class; in
    the order of class_names. notes: what the numbers do not say, in words.
    """

    name: str
    counts: np.ndarray
    class_names: tuple[str, ...]
    images: int
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


def of_folder(
    name: str,
    predictions: Path,
    truth: Path,
    *,
    class_names: Sequence[str] | None = None,
    ids: str = label_folders.TRAIN,
    truth_ids: str | None = None,
) -> Result:
    """Score a folder of predicted label maps against a folder of true ones.

    predictions: a folder of label maps, or one that `dasac_jax.predict` wrote, which holds the
    class names too. class_names: the truth's, in the order of its train ids; by default the
    predictions', or Cityscapes'. Predictions of the same classes in another order are compared by
    name. ids, truth_ids: what the label maps hold, see `label_folders.confusion`; truth_ids is by
    default `ids`. Raises UserError as `label_folders.match` and `label_folders.confusion` do, for
    predictions of other classes, and for Cityscapes ids of other classes than Cityscapes'.
    """
    truth_ids = truth_ids or ids
    folder, own = predictions, None
    if (predictions / PREDICTION_RECORD).is_file():
        folder = predictions / _PREDICTED[ids]
        own = _recorded_classes(predictions / PREDICTION_RECORD)
    names = tuple(class_names or own or CLASS_NAMES)
    # Cityscapes ids name the classes themselves.
    own = names if own is None or ids == label_folders.CITYSCAPES else own
    class_order.check_same(predictions, own, names)
    if label_folders.CITYSCAPES in (ids, truth_ids) and names != CLASS_NAMES:
        raise UserError(
            f"Cityscapes ids stand for its {len(CLASS_NAMES)} classes, not for the {len(names)} "
            f"of {predictions}: use label maps of train ids"
        )
    pairs = label_folders.match(folder, truth, truth_ids=truth_ids)
    with logs.progress(name, len(pairs)) as update:
        counts = label_folders.confusion(
            pairs, len(names), ids=ids, truth_ids=truth_ids, update=update
        )
    return _result(name, counts, own, names, len(pairs), {"predictions": str(folder)})


@dataclass(frozen=True)
class Network:
    """A checkpoint's network with its weights, and what is known of it.

    class_names: in the order of what it predicts. facts: for reports. stored: all its metadata.
    """

    path: Path
    model: nn.Module
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    facts: dict[str, Any]
    stored: dict[str, Any]


def open_network(
    path: Path, *, teacher: bool = False, class_names: Sequence[str] | None = None
) -> Network:
    """A checkpoint's student, or its teacher; see `trained_network.open_checkpoint` for the path.

    class_names: those of the data. A checkpoint that does not say its own has these, in this
    order; one that does has to have the same in any order. Raises UserError for checkpoints
    without such a network and for other classes.
    """
    model, networks, facts = trained_network.open_checkpoint(path)
    names = tuple(class_names or trained_network.class_names(facts))
    if len(names) != model.num_classes:
        raise UserError(
            f"checkpoint {path} has {model.num_classes} classes, but {len(names)} are to be "
            f"scored: {', '.join(names)}"
        )
    if facts.get("class_names"):
        class_order.check_same(path, facts["class_names"], names)
        names = tuple(facts["class_names"])
    variables = trained_network.choose(networks, path, teacher=teacher)
    stored = {key: facts[key] for key in ("arch", "stage", "step") if key in facts}
    about = {"checkpoint": str(path), "network": "teacher" if teacher else "student", **stored}
    return Network(path, model, variables, names, about, dict(facts))


def of_network(
    name: str,
    network: Network,
    pairs: PairSource,
    *,
    class_names: Sequence[str] | None = None,
    batch: int | None = None,
) -> Result:
    """Score a network on labelled images at their full size.

    class_names: those that the labels' train ids stand for, the network's in any order; by default
    in its own. batch: images at a time over all local devices, by default one for each. Raises
    UserError for files that cannot be read or hold labels that are no classes of the network, and
    where no pixel has a label.
    """
    classes, batch = len(network.class_names), batch or jax.local_device_count()
    if pairs.id_map and pairs.num_classes != classes:
        raise UserError(
            f"checkpoint {network.path} has {classes} classes, but the data in {pairs.root} "
            f"have {pairs.num_classes}: score it on data of its own classes"
        )
    variables = data_parallel.replicate(network.variables)
    score = _scorer(network.model)
    total, done = np.zeros((classes, classes), np.int64), 0
    with logs.progress(name, len(pairs)) as update:
        try:
            for group in by_size(pairs, classes):
                _make_room((network.model, group.size))
                counts, _ = scoring.confusion(
                    score, variables, group, batch=batch,
                    update=lambda scored, before=done: update(before + scored),
                )  # fmt: skip
                total, done = total + counts, done + len(group)
        except UserError as error:
            raise UserError(
                f"{error} (scoring {network.path}, which has {classes} classes)"
            ) from error
    none = np.zeros((classes, 1), np.int64)  # a network predicts a class everywhere
    counts = np.concatenate([total, none], axis=1)
    if not total.any():
        raise UserError(f"{pairs.name}: no label pixel stands for a class, so nothing is scored")
    names = tuple(class_names or network.class_names)
    return _result(name, counts, network.class_names, names, len(pairs), network.facts)


def by_size(pairs: PairSource, num_classes: int) -> list[PairSource]:
    """The same pairs at their own sizes: a source for each size, in order of appearance.

    Mostly only the files' headers are read. Raises UserError naming the first file that cannot be
    read, or the first label that differs from its image in size: a resized label would not be
    the truth any more.
    """

    def size_of(pair: sources.Pair) -> tuple[int, int]:
        image, label = (pairs.file(path) for path in pair)
        size, label_size = displayed_size(image), displayed_size(label, "label file")
        if size != label_size:
            (height, width), (other_height, other_width) = size, label_size
            raise UserError(
                f"image {image} has {width}×{height} pixels, its label {label} has "
                f"{other_width}×{other_height}: sizes have to agree"
                + turned_hint(image, size, label_size)
            )
        return size

    groups: dict[tuple[int, int], list[sources.Pair]] = defaultdict(list)
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        for pair, size in zip(pairs.pairs, pool.map(size_of, pairs.pairs), strict=True):
            groups[size].append(pair)
    return [
        replace(pairs, pairs=tuple(group), size=size, num_classes=num_classes)
        for size, group in groups.items()
    ]


def means(class_names: Sequence[str], without: Iterable[int] = ()) -> dict[str, tuple[int, ...]]:
    """The means that a report gives: name → train ids left out.

    For Cityscapes' 19 classes these are over 19, 16 (as for SYNTHIA) and 13 of them, for other
    classes over all. without: train ids that the configuration leaves out, for one mean more.
    """
    found: dict[tuple[int, ...], None] = {(): None}
    if tuple(class_names) == CLASS_NAMES:
        found |= {SYNTHIA_LEFT_OUT: None, SYNTHIA_LEFT_OUT_13: None}
    found[tuple(sorted(without))] = None
    by_name: dict[str, tuple[int, ...]] = {}
    for ids in found:
        name = f"mean over {len(class_names) - len(ids)} classes"
        # Two sets of one size are told apart by what they leave out.
        if name in by_name:
            name += f" (without {', '.join(class_names[i] for i in ids)})"
        by_name[name] = ids
    return by_name


def scores(result: Result, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Every number that follows from a result's counts, in 0..1.

    iou, precision, recall: (C,) float64, nan where there is nothing to divide by.
    pixel_accuracy: float. means: for each of `wanted` a dictionary of iou, precision and recall
    over the classes that have a value; "classes", how many have an IoU, "counted", how many have
    each of the three, "of" how many; and "title", which says so. Pixels predicted as no class are
    missed ones of their true class, as in the official evaluation.
    """
    classes = len(result.counts)
    # Pixels predicted as no class go to one more class, which is never true and is cut off below.
    square = np.concatenate([result.counts, np.zeros((1, classes + 1), np.int64)])
    summary = summarise(square)
    values = {key: summary[key][:classes] for key in ("iou", "precision", "recall")}
    return {
        **values,
        "pixel_accuracy": summary["pixel_accuracy"],
        "means": {name: _mean_scores(name, values, ids) for name, ids in wanted.items()},
    }


def _mean_scores(name: str, values: Mapping[str, np.ndarray], without: Sequence[int]) -> Any:
    """The means of scores by class, over the classes that have a value, and over how many."""
    kept = {key: np.delete(value, list(without)) for key, value in values.items()}
    counted = {key: int((~np.isnan(value)).sum()) for key, value in kept.items()}
    present, of = counted["iou"], len(kept["iou"])
    return {
        **{key: _mean(value) for key, value in kept.items()},
        "classes": present,
        "counted": counted,
        "of": of,
        "title": tables.mean_title(name, [present], of),
    }


def _result(name, counts, own, names, images, facts) -> Result:
    """The result of counts whose columns are in the order `own` of what was predicted.

    names: the classes in the order of the truth, which the result has.
    """
    notes = []
    if own != names:
        counts = class_order.by_name(counts, own, names)
        notes.append(f"it predicts the classes in the order {', '.join(own)}: compared by name")
    if not np.trace(counts[:, :-1]):
        notes.append(
            f"not one of {counts.sum()} scored pixels is right: are these the same classes, "
            "images and ids?"
        )
    return Result(name, counts, names, images, facts, tuple(notes))


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _recorded_classes(path: Path) -> tuple[str, ...]:
    """The class names in the record that `dasac_jax.predict` wrote."""
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error!r}; give a folder of label maps") from error
