"""Whether a checkpoint fits the network and the configuration at hand, and if not, what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from dasac_jax.errors import UserError
from dasac_jax.models.shapes import variable_shapes

_DIFFERENCES_NAMED = 3
_ADVICE = "give the configuration that it was written with"

Shape = tuple[int, ...]


class Differences(NamedTuple):
    """The names of arrays that are missing, that nothing needs, and that have another shape."""

    missing: list[str]
    not_needed: list[str]
    reshaped: list[str]


def differences(stored: Mapping[str, Any], needed: Mapping[str, Shape]) -> Differences:
    """What keeps stored arrays, by name, from being those needed, of which the shapes are given."""
    return Differences(
        missing=[name for name in needed if name not in stored],
        not_needed=[name for name in stored if name not in needed],
        reshaped=[name for name in needed if name in stored and stored[name].shape != needed[name]],
    )


def described(
    stored: Mapping[str, Any],
    needed: Mapping[str, Shape],
    needs: str = "this configuration needs",
) -> list[str]:
    """The differences as phrases to follow "the checkpoint": "lacks …", "holds …"."""
    found = differences(stored, needed)
    return [
        *(f"lacks {name}" for name in found.missing),
        *(f"holds {name}, which is not needed" for name in found.not_needed),
        *(f"holds {name} {stored[name].shape}, {needs} {needed[name]}" for name in found.reshaped),
    ]


def shortened(phrases: Sequence[str]) -> str:
    """The first three phrases, and how many more there are."""
    more = len(phrases) - _DIFFERENCES_NAMED
    rest = f"; and {more} more" if more > 0 else ""
    return "; ".join(phrases[:_DIFFERENCES_NAMED]) + rest


def check_facts(path: Path, metadata: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    """Raise UserError, naming what differs, where a checkpoint's metadata are not those needed.

    A key that the metadata do not have is passed over: the arrays are checked in any case.
    """
    differing = [
        f"has {key} {metadata[key]}, this configuration {value}"
        for key, value in needs.items()
        if metadata.get(key, value) != value
    ]
    _refuse(path, differing, _ADVICE)


def check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise UserError naming those of a checkpoint's arrays with which nothing can be computed.

    That is where a number is not finite, or a variance is negative. A network of such weights
    predicts class 0 everywhere, without an error.
    """
    bad = []
    for name, array in arrays.items():
        # A sum in float64 is finite where all float32 numbers are, and needs no memory.
        if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
            wrong = np.count_nonzero(~np.isfinite(array))
            bad.append(f"holds {name} with {wrong} of {array.size} numbers not finite")
        elif "batch_stats/" in name and name.endswith("/var") and array.min(initial=0) < 0:
            bad.append(f"holds {name} with a negative variance")
    _refuse(path, bad, "its training had diverged, or it was changed; take an earlier checkpoint")


def filled(path: Path, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """A tree as `like` of a checkpoint's arrays. Raises UserError naming what does not fit."""
    needed = named_leaves(like)
    _refuse(path, _described_with_dtypes(arrays, needed), _ADVICE)
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[key] for key in needed])


def networks(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Student, teacher and class prior (C,) out of a checkpoint's named arrays.

    Raises UserError where the arrays are not those of the network that the metadata name, or are
    not finite.
    """
    for key in ("arch", "num_classes"):
        if key not in metadata:
            raise UserError(f"checkpoint {path} does not say its {key}: it holds no whole network")
    classes = int(metadata["num_classes"])
    student = {
        key: jax.ShapeDtypeStruct(shape, np.float32)
        for key, shape in variable_shapes(metadata["arch"], classes).items()
    }
    needed = student | {f"teacher/{key}": leaf for key, leaf in student.items()}
    needed["class_prior"] = jax.ShapeDtypeStruct((classes,), np.float32)
    found = {
        key: array
        for key, array in arrays.items()
        if key in needed or key.startswith(("params/", "batch_stats/", "teacher/"))
    }
    problem = f"it is not {metadata['arch']} for {classes} classes"
    _refuse(path, _described_with_dtypes(found, needed), problem)
    check_finite(path, found)
    tree = traverse_util.unflatten_dict(found, sep="/")
    return {
        "student": {name: tree.get(name, {}) for name in ("params", "batch_stats")},
        "teacher": tree["teacher"],
        "class_prior": tree["class_prior"],
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as in "params/head/kernel", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _described_with_dtypes(stored: Mapping[str, np.ndarray], needed: dict[str, Any]) -> list[str]:
    """`described`, and after it the arrays of the right shape that have another dtype."""
    leaves = {
        key: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for key, leaf in needed.items()
    }
    phrases = described(stored, {key: leaf.shape for key, leaf in leaves.items()})
    return phrases + [
        f"holds {key} as {stored[key].dtype}, this configuration needs {leaf.dtype}"
        for key, leaf in leaves.items()
        if key in stored and stored[key].shape == leaf.shape and stored[key].dtype != leaf.dtype
    ]


def _refuse(path: Path, phrases: list[str], advice: str) -> None:
    """Raise UserError where there are phrases that say what is wrong."""
    if phrases:
        raise UserError(f"checkpoint {path} {shortened(phrases)}: {advice}")
