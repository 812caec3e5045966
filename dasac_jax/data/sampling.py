"""The order in which images are sampled: pure functions of (seed, epoch, position), on the host.

Only the raw output of the random generator is used. NumPy guarantees that it never changes, whereas
its shuffles and choices may change between versions, and with them the order of a resumed run.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.files import replacing

UNIFORM_SHARE = 0.25
"""Share of the uniform distribution in target sampling; the rest follows the weights."""

_SOURCE, _TARGET = 0, 1  # first numbers of the seeds, so that the two random streams differ

_FILE_COMMENT = "# Pixels predicted per class in each target training image (tab-separated)."
_SHARES_COMMENT = (
    "# Shares of a class's predicted pixels in each target training image (tab-separated)."
)
_COUNT = re.compile(r"\d+", re.ASCII)
_SHARE = re.compile(r"\d+(\.\d+)?(e-?\d+)?", re.ASCII)
_FRAME = re.compile(r"[^_]+_\d{6}_\d{6}(?=_|$)")  # Cityscapes' city, sequence and frame


def _raw(*entropy: int, size: int | None = None) -> np.ndarray | int:
    """uint64 random numbers, a function of the given non-negative integers alone."""
    return np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(size)


def source_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """(num_images,) int64: the order of the source images in an epoch."""
    return np.argsort(_raw(_SOURCE, seed, epoch, size=num_images), kind="stable")


def importance_weights(counts: np.ndarray) -> np.ndarray:
    """(N, C) predicted pixels -> (N, C) float64: the share of a class's pixels in each image.

    Columns sum to 1; the column of a class without any predicted pixel is 0.
    """
    counts = np.asarray(counts, np.float64)
    totals = counts.sum(axis=0)
    return np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)


def target_probabilities(
    num_images: int,
    weights: np.ndarray | None,
    num_classes: int,
    uniform_classes: Sequence[int] = (),
) -> np.ndarray:
    """(C, N) float64: the probability of each image, given the class that it is drawn for.

    Image k of class c has the probability 0.25/N + 0.75 · `weights`[k, c]. The probabilities are
    uniform for the classes in `uniform_classes` (those left out of the mean), for classes without
    any predicted pixel and, without `weights` (N, C), for all classes. Rows sum to 1. Raises
    UserError for weights of another shape.
    """
    uniform = np.full((num_classes, num_images), 1 / num_images)
    if weights is None:
        return uniform
    weights = np.asarray(weights, np.float64)
    if weights.shape != (num_images, num_classes):
        raise UserError(
            f"importance weights of shape {weights.shape} do not fit "
            f"{num_images} target images and {num_classes} classes"
        )
    weighted = weights.sum(axis=0) > 0
    weighted[list(uniform_classes)] = False
    mixed = UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * weights.T
    return np.where(weighted[:, None], mixed, uniform)


@dataclasses.dataclass(frozen=True)
class TargetSampler:
    """Draws target images. cumulative: (C, N) cumulative sums of each class's probabilities."""

    cumulative: np.ndarray

    def index(self, seed: int, epoch: int, position: int) -> int:
        """The image at `position` of an epoch, drawn for the class `position` mod C."""
        sums = self.cumulative[position % len(self.cumulative)]
        draw = (_raw(_TARGET, seed, epoch, position) >> 11) * 2.0**-53  # in [0, 1)
        found = int(np.searchsorted(sums, draw * sums[-1], side="right"))
        return min(found, len(sums) - 1)  # rounding of the product can reach the last sum


def target_sampler(
    num_images: int,
    weights: np.ndarray | None,
    num_classes: int,
    uniform_classes: Sequence[int] = (),
) -> TargetSampler:
    """The sampler for `target_probabilities`, whose arguments these are."""
    probabilities = target_probabilities(num_images, weights, num_classes, uniform_classes)
    return TargetSampler(np.cumsum(probabilities, axis=1))


def save_weights(
    path: str | os.PathLike, names: Sequence[str], counts: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write the file that importance weights are read from, atomically.

    counts: (N, C), integers for predicted pixels, floating-point numbers for shares of a class's
    pixels. The file is text with tabs: a comment line that says which of the two it holds, a header
    (`image` and the class names), then one line per image (its name and its pixels or shares per
    class). Raises UserError for other shapes, for names with tabs or line breaks, and where the
    file cannot be written.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(class_names)):
        raise UserError(
            f"pixel counts of shape {counts.shape} do not fit "
            f"{len(names)} images and {len(class_names)} classes"
        )
    comment, as_text = _FILE_COMMENT, lambda value: str(int(value))
    if counts.dtype.kind == "f":
        comment, as_text = _SHARES_COMMENT, lambda value: repr(float(value))
    lines = [comment, "\t".join(["image", *class_names])]
    for name, row in zip(names, counts.tolist(), strict=True):
        if "\t" in name or "\n" in name:
            raise UserError(f"image name {name!r} contains a tab or line break: rename the file")
        lines.append("\t".join([name, *map(as_text, row)]))
    path = Path(path)
    try:
        with replacing(path) as unfinished:
            unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write importance weights {path}: {error}") from error


def load_weights(
    path: str | os.PathLike, names: Sequence[str], class_names: Sequence[str]
) -> np.ndarray:
    """Read the importance weights (N, C) float64 of the images `names` from a file.

    Where the file holds none of `names`, because its names are those of masks, names are matched by
    city, sequence and frame if they are like Cityscapes', else by the last part of the path without
    suffix. Raises UserError where the file is unreadable or damaged, or was made for other classes
    or images.
    """
    return importance_weights(_load(path, names, class_names)[0])


def load_counts(
    path: str | os.PathLike, names: Sequence[str], class_names: Sequence[str]
) -> np.ndarray | None:
    """The predicted pixels (N, C) float64 that a file of importance weights holds.

    None where it holds shares instead. The rest is as in `load_weights`.
    """
    rows, are_counts = _load(path, names, class_names)
    return rows if are_counts else None


def _load(path, names, class_names) -> tuple[np.ndarray, bool]:
    """The rows (N, C) of a file of importance weights, and whether they are pixel counts."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read importance weights {path}: {error}") from error
    if len(lines) < 2 or lines[0] not in (_FILE_COMMENT, _SHARES_COMMENT):
        raise UserError(
            f"{path} is no file of importance weights: remove it, and stage weights makes it again"
        )
    header = lines[1].split("\t")
    if header != ["image", *class_names]:
        raise UserError(
            f"importance weights {path} are for the classes {header[1:]}, not {list(class_names)}: "
            "remove the file, and stage weights makes it again"
        )
    are_counts = lines[0] == _FILE_COMMENT
    kind = (_COUNT, int, "pixel counts") if are_counts else (_SHARE, float, "shares")
    rows: dict[str, list[float]] = {}
    for number, line in enumerate(lines[2:], start=3):
        name, row = _parse_row(path, number, line, len(class_names), *kind)
        if name in rows:
            raise UserError(f"importance weights {path}, line {number}: {name} is listed twice")
        rows[name] = row
    keys = list(names)
    if set(keys).isdisjoint(rows):
        keys = list(_by_frame("the target's training images", dict.fromkeys(names)))
        rows = _by_frame(f"importance weights {path}", rows)
    _check_names(path, rows, keys)
    return np.array([rows[key] for key in keys], np.float64), are_counts


def _parse_row(
    path, number: int, line: str, num_classes: int, field: re.Pattern, parse: Callable, what: str
) -> tuple[str, list[float]]:
    """One line of the weights file -> image name and pixels or shares per class."""
    name, *fields = line.split("\t")
    if len(fields) != num_classes or not all(field.fullmatch(f) for f in fields):
        raise UserError(
            f"importance weights {path}, line {number}: "
            f"an image name and {num_classes} {what} expected, got {line!r}"
        )
    return name, [parse(f) for f in fields]


def _frame(name: str) -> str:
    """The part of the name that an image and its mask have in common."""
    stem = PurePosixPath(name).stem
    found = _FRAME.match(stem)
    return found[0] if found else stem


def _by_frame(where: str, rows: dict[str, Any]) -> dict[str, Any]:
    """`rows` by `_frame` of their names. where: what holds them, for the error message."""
    found: dict[str, Any] = {}
    for name, row in rows.items():
        if _frame(name) in found:
            raise UserError(
                f"{where}: two of them are called {_frame(name)!r}, so that names of masks cannot "
                "tell them apart; name the images by their paths"
            )
        found[_frame(name)] = row
    return found


def _check_names(path, counts: dict[str, list[float]], names: Sequence[str]) -> None:
    """Raise UserError unless the file holds exactly the training images, as shares need all."""
    absent = [name for name in names if name not in counts]
    listed = set(names)
    extra = [name for name in counts if name not in listed]
    if absent or extra:
        problem = f"lack {len(absent)} of the {len(names)} target training images"
        raise UserError(
            f"importance weights {path} {problem} and hold {len(extra)} others "
            f"(first: {(absent + extra)[0]}): remove the file, and stage weights makes it again"
        )
