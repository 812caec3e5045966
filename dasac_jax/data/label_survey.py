"""Which values label files hold, and whether they can be what the configuration takes them for.

A label value that no class claims is ignored, so labels of another kind than expected would train
and score as nothing at all. The values of some files are therefore counted before they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from dasac_jax.data.classes import IdMap
from dasac_jax.data.labels import CLASS_NAMES, IGNORE
from dasac_jax.data.pairs import PREPARED, PairSource
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_LABEL

MOST_FILES = 64
"""How many label files are counted: seconds at full size, and enough to see what kind they are."""

MOSTLY_IGNORED = 0.75
"""A share of ignored pixels that no data set in use comes near; labels of another kind do."""

_THREADS = 8
_MOST_VALUES = 12  # that a message lists
# Cityscapes ships files for its test split, too, which hold the ids of borders and car alone.
_PLACEHOLDER_VALUES = {0, 1, 2, 3}


class Survey(NamedTuple):
    """What was counted: (256,) int64 pixels by the value as stored, in `files` of `total` files."""

    counts: np.ndarray
    files: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether every file was counted."""
        return self.files == self.total


class Meaning(NamedTuple):
    """What label values are taken for.

    id_map: (value, class) pairs, empty where values are train ids. class_names: in the order of the
    train ids. own: whether the data are the user's own. key: the configuration's, of the id map.
    is_trained_on: whether they have to show all classes.
    """

    id_map: IdMap
    class_names: tuple[str, ...]
    own: bool
    key: str = ""
    is_trained_on: bool = False

    @property
    def names_classes(self) -> bool:
        """Whether the configuration itself says which classes the labels have."""
        return self.own and (bool(self.id_map) or self.class_names != CLASS_NAMES)

    @property
    def train_ids(self) -> dict[int, int]:
        """The class of each value that has one."""
        return dict(self.id_map) or {i: i for i in range(len(self.class_names))}


def spread(count: int, most: int = MOST_FILES) -> list[int]:
    """At most `most` of the numbers 0 to count - 1, at equal distances."""
    chosen = min(count, most)
    return [(2 * i + 1) * count // (2 * chosen) for i in range(chosen)]


def survey(pairs: PairSource, most: int = MOST_FILES) -> Survey:
    """Count the label values of at most `most` labelled pairs, spread over all of them.

    Raises UserError naming the file where one cannot be read or holds a value that is impossible.
    """
    labelled = [i for i, (_, label) in enumerate(pairs.pairs) if label is not None]
    chosen = [labelled[i] for i in spread(len(labelled), most)]
    counts = np.zeros(256, np.int64)
    with ThreadPoolExecutor(_THREADS) as pool:
        for found in pool.map(pairs.label_values, chosen):
            counts += found
    return Survey(counts, len(chosen), len(labelled))


def shares(
    counts: np.ndarray,
    names: dict[int, str] | None = None,
    total: int = 0,
    most: int = _MOST_VALUES,
) -> str:
    """The values and their shares as in "0 sky (62.5 %), 255 (37.5 %)", the largest first.

    counts: (256,) pixels by value. names: what to call the values. total: the pixels of which these
    are shares, by default all of `counts`. most: how many are listed.
    """
    total, names = max(total or int(counts.sum()), 1), names or {}
    values = [int(v) for v in np.argsort(-counts, kind="stable") if counts[v]]
    words = [
        " ".join(filter(None, [str(v), names.get(v), f"({_percent(counts[v] / total)})"]))
        for v in values
    ]
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def ignored_share(counts: np.ndarray, meaning: Meaning) -> float:
    """The share of pixels that stand for no class, 0..1; counts: (256,) pixels by value."""
    named = sum(int(counts[value]) for value in meaning.train_ids)
    return 1 - named / max(int(counts.sum()), 1)


def check(found: Survey, where: str, meaning: Meaning, names: Sequence[str] = ()) -> list[int]:
    """The classes that the configuration names and that do not occur in what was counted.

    where: what was counted, for messages. names: of the label files. Raises UserError, with the
    values that were found, where

    - no pixel stands for a class,
    - own data without an id map hold 0 and 255 alone,
    - all files were counted and a class that the configuration names does not occur: always where
      they are trained on; else, as they may simply show no such thing, only where a value occurs
      that no class claims,
    - the files are the placeholders of Cityscapes' test split.
    """
    if not found.counts.any():
        raise UserError(f"{where}: there is no label pixel")
    values = set(np.flatnonzero(found.counts).tolist())
    if problem := _placeholders(values, meaning, names):
        raise _error(found, where, meaning, problem)
    if problem := _mask_without_map(values, meaning):
        raise _error(found, where, meaning, problem)
    present = {train_id for value, train_id in meaning.train_ids.items() if value in values}
    if not present:
        raise _error(found, where, meaning, _no_class(meaning))
    if not meaning.names_classes:
        return []
    absent = sorted(set(meaning.train_ids.values()) - present)
    unnamed = values - meaning.train_ids.keys()
    suspicious = meaning.is_trained_on or unnamed - {IGNORE} or values == {0, IGNORE}
    if absent and found.is_whole and suspicious:
        raise _error(found, where, meaning, _class_missing(absent[0], meaning))
    return absent


def described(found: Survey, where: str, meaning: Meaning) -> str:
    """What was counted in one line: each value with its class and share, the ignored ones apart."""
    train_ids = meaning.train_ids
    names = {value: meaning.class_names[train_id] for value, train_id in train_ids.items()}
    named = np.zeros(256, bool)
    named[list(names)] = True
    total = int(found.counts.sum())
    text = f"{where}: {_files(found)} hold {shares(found.counts * named, names, total)}"
    ignored = found.counts * ~named
    return text + (f"; ignored: {shares(ignored, total=total)}" if ignored.any() else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _files(found: Survey) -> str:
    if found.is_whole:
        return f"its {found.total} label files"
    return f"{found.files} of its {found.total} label files"


def _error(found: Survey, where: str, meaning: Meaning, problem: tuple[str, str]) -> UserError:
    what, advice = problem
    return UserError(f"{where}: {what}; {_files(found)} hold {shares(found.counts)}: {advice}")


def _placeholders(
    values: set[int], meaning: Meaning, names: Sequence[str]
) -> tuple[str, str] | None:
    """The problem where these are the files that Cityscapes ships for its test split."""
    as_shipped = bool(names) and all(f"{CITYSCAPES_LABEL}." in name for name in names)
    if as_shipped and meaning.class_names == CLASS_NAMES and not meaning.id_map:
        return placeholders(values)
    return None


def placeholders(values: set[int]) -> tuple[str, str] | None:
    """The problem, and advice, where Cityscapes' label files hold these values alone."""
    if not values <= _PLACEHOLDER_VALUES:
        return None
    return (
        "these are no labels but look like the placeholders of Cityscapes' test split",
        "its labels are not published, so only the evaluation server can score it; take val",
    )


def _mask_without_map(values: set[int], meaning: Meaning) -> tuple[str, str] | None:
    if not meaning.own or meaning.id_map or values != {0, IGNORE}:
        return None
    first, second = meaning.class_names[:2]
    return (
        "without an id map 255 stands for ignored pixels, so only one class remains",
        f"if this is a mask, give {meaning.key}=((0, {first!r}), (255, {second!r}))",
    )


def _no_class(meaning: Meaning) -> tuple[str, str]:
    what = "no label pixel stands for a class"
    if meaning.id_map:
        named = ", ".join(str(value) for value, _ in meaning.id_map[:_MOST_VALUES])
        return f"{what}, since {meaning.key} names {named}", "name the values that occur"
    if meaning.own:
        return what, f"say in {meaning.key} which value stands for which class"
    return what, f"are these labels of another kind? They are {PREPARED} from the published files"


def _class_missing(train_id: int, meaning: Meaning) -> tuple[str, str]:
    name = meaning.class_names[train_id]
    values = [value for value, known in meaning.train_ids.items() if known == train_id]
    listed = ", ".join(map(str, values))
    what = f"class {name!r}, label value {listed}, does not occur"
    if meaning.is_trained_on:
        advice = "so nothing could teach it: name its true value"
        return what, f"{advice} in {meaning.key}, or leave the class out of data.classes.names"
    return what, (
        f"name its true value in {meaning.key}, or leave {name!r} out there if no image shows it"
    )
