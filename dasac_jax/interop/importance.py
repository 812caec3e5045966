"""The authors' importance weights: {mask file: {class: share}}, stored with torch.save."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from dasac_jax.data import sampling
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.interop.torch_files.file import load_torch_file

_TOLERANCE = 1e-3  # of a class's sum of shares


def holds_weights(loaded: Any) -> bool:
    """Whether the content of a PyTorch file is importance weights rather than a network."""
    return (
        isinstance(loaded, dict)
        and bool(loaded)
        and all(str(name).endswith(".png") for name in loaded)
        and all(isinstance(shares, dict) for shares in loaded.values())
    )


def is_weights_file(path: Path | str) -> bool:
    """Whether a file can be loaded and holds importance weights."""
    try:
        return holds_weights(load_torch_file(path))
    except UserError:
        return False


def read(path: Path | str) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted names of the masks, and (N, 19) float64: each mask's share of a class's pixels.

    A class that a mask lacks has share 0 there; over all masks the shares of a class sum to 1, or
    to 0 where no mask has it. Raises UserError naming the mask and class where the file is of
    another kind.
    """
    loaded = load_torch_file(path)
    if not holds_weights(loaded):
        raise UserError(
            f"{path} holds no importance weights: a dictionary from mask names (….png) to "
            "dictionaries from classes to shares is needed"
        )
    names = tuple(sorted(loaded))
    shares = np.zeros((len(names), len(CLASSES)))
    for row, name in zip(shares, names, strict=True):
        for key, value in loaded[name].items():
            label, share = _number(key), _number(value)
            if label not in range(len(CLASSES)):
                raise UserError(f"{path}: {name} has {key!r} for a class, 0..18 are known")
            if not 0 <= share <= 1:
                raise UserError(f"{path}: {name} has {value!r} for the share of class {label:.0f}")
            row[int(label)] = share
    for entry, total in zip(CLASSES, shares.sum(axis=0), strict=True):
        if total and abs(total - 1) > _TOLERANCE:
            raise UserError(
                f"{path}: the shares of class {entry.name} sum to {total:.4g}, not 1: some of the "
                "file's images are missing"
            )
    return names, shares


def convert(path: Path | str, output: Path | str) -> int:
    """Write a run's weights.tsv from a file of importance weights; returns the number of images.

    Raises UserError where the file cannot be read, or `output` exists already.
    """
    names, shares = read(path)
    output = Path(output)
    if output.exists():
        raise UserError(f"{output} is there already: give another file, or remove it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    sampling.save_weights(output, names, shares, [entry.name for entry in CLASSES])
    return len(names)


def _number(value: Any) -> float:
    """A number of Python or numpy, or an array of one element, as float; NaN for anything else."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iufb":
        return math.nan
    return float(array.reshape(()))
