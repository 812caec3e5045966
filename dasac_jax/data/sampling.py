"""Which image comes when: pure functions of (seed, epoch, position), on the host.

Only raw generator output is used, which NumPy keeps the same for ever; its shuffles and choices may
change between versions, and with them the order of a resumed run.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dasac_jax.errors import UserError

UNIFORM_SHARE = 0.25
"""Share of the uniform distribution in target sampling; the rest follows the weights."""

_SOURCE, _TARGET = 0, 1  # keep the two random streams apart

_FILE_COMMENT = "# Pixels predicted per class in each target training image (tab-separated)."


def _raw(*entropy: int, size: int | None = None) -> np.ndarray | int:
    """uint64 draws that depend on the given non-negative integers alone."""
    return np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(size)


def source_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """(num_images,) int64: the order in which an epoch shows the source images."""
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
    """(C, N) float64: the probability of each image, given the class an item stands for.

    Image k has 0.25/N + 0.75 · `weights`[k, c]. Classes in `uniform_classes` (those left out of
    the mean), classes without any predicted pixel and, without `weights` (N, C), all classes are
    uniform. Rows sum to 1. Raises UserError for weights of another shape.
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
    """Draws target images; `cumulative` (C, N) are summed probabilities per class."""

    cumulative: np.ndarray

    def index(self, seed: int, epoch: int, position: int) -> int:
        """The image shown at `position` of an epoch, which stands for class position mod C."""
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
    """A sampler over `target_probabilities`, with the sums made once."""
    probabilities = target_probabilities(num_images, weights, num_classes, uniform_classes)
    return TargetSampler(np.cumsum(probabilities, axis=1))


def save_weights(
    path: str | os.PathLike, names: Sequence[str], counts: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes the pixel counts (N, C) that importance weights are made of, atomically.

    A text file with tabs: a comment line, a header (`image` and the class names), then one line
    per image (its name and its pixels per class).
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(class_names)):
        raise UserError(
            f"pixel counts of shape {counts.shape} do not fit "
            f"{len(names)} images and {len(class_names)} classes"
        )
    lines = [_FILE_COMMENT, "\t".join(["image", *class_names])]
    for name, row in zip(names, counts.tolist(), strict=True):
        if "\t" in name or "\n" in name:
            raise UserError(f"image name {name!r} contains a tab or line break: rename the file")
        lines.append("\t".join([name, *(str(int(count)) for count in row)]))
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write importance weights {path}: {error}") from error


def load_weights(
    path: str | os.PathLike, names: Sequence[str], class_names: Sequence[str]
) -> np.ndarray:
    """The importance weights (N, C) float64 of `names`, in their order, from `save_weights`' file.

    Raises UserError when the file is unreadable or damaged, or made for other classes or images.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read importance weights {path}: {error}") from error
    if len(lines) < 2 or lines[0] != _FILE_COMMENT:
        raise UserError(f"{path} is no file of importance weights: make it again (stage weights)")
    header = lines[1].split("\t")
    if header != ["image", *class_names]:
        raise UserError(
            f"importance weights {path} are for the classes {header[1:]}, not {list(class_names)}"
        )
    counts: dict[str, list[int]] = {}
    for number, line in enumerate(lines[2:], start=3):
        name, row = _parse_row(path, number, line, len(class_names))
        if name in counts:
            raise UserError(f"importance weights {path}, line {number}: {name} is listed twice")
        counts[name] = row
    _check_names(path, counts, names)
    return importance_weights(np.array([counts[name] for name in names]))


def _parse_row(path, number: int, line: str, num_classes: int) -> tuple[str, list[int]]:
    """One line of the weights file -> image name and pixels per class."""
    name, *fields = line.split("\t")
    if len(fields) != num_classes or not all(f.isascii() and f.isdigit() for f in fields):
        raise UserError(
            f"importance weights {path}, line {number}: "
            f"an image name and {num_classes} pixel counts expected, got {line!r}"
        )
    return name, [int(field) for field in fields]


def _check_names(path, counts: dict[str, list[int]], names: Sequence[str]) -> None:
    """Weights are shares of all images: the file must hold the training images and no others."""
    absent = [name for name in names if name not in counts]
    listed = set(names)
    extra = [name for name in counts if name not in listed]
    if absent or extra:
        problem = f"lack {len(absent)} of the {len(names)} target training images"
        raise UserError(
            f"importance weights {path} {problem} and hold {len(extra)} others "
            f"(first: {(absent + extra)[0]}): make them again for this list (stage weights)"
        )
