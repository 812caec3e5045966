"""Whether a checkpoint is of the network and the configuration at hand, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from dasac_jax.errors import UserError
from dasac_jax.models.shapes import variable_shapes

_DIFFERENCES_NAMED = 3
_MEND = "give the configuration that it was written with"


def check_facts(path: Path, metadata: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    """Raise UserError, naming what differs, where a checkpoint's metadata are not those needed.

    What they do not tell of is left to its arrays.
    """
    differing = [
        f"has {key} {metadata[key]}, this configuration {value}"
        for key, value in needs.items()
        if metadata.get(key, value) != value
    ]
    _refuse(path, differing, _MEND)


def filled(path: Path, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """A tree as `like` of a checkpoint's arrays. Raises UserError naming what does not fit."""
    needed = named_leaves(like)
    _refuse(path, _differences(arrays, needed), _MEND)
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[key] for key in needed])


def networks(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> dict:
    """Student, teacher and class prior out of named arrays, checked against their network."""
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
    _refuse(
        path, _differences(found, needed), f"it is not {metadata['arch']} for {classes} classes"
    )
    tree = traverse_util.unflatten_dict(found, sep="/")
    return {
        "student": {name: tree[name] for name in ("params", "batch_stats")},
        "teacher": tree["teacher"],
        "class_prior": tree["class_prior"],
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as in "params/head/kernel", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _refuse(path: Path, differences: list[str], what: str) -> None:
    """Raise UserError where there are differences, with the first of them and `what` to do."""
    if differences:
        named = "; ".join(differences[:_DIFFERENCES_NAMED])
        more = len(differences) - _DIFFERENCES_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise UserError(f"checkpoint {path} {named}{rest}: {what}")


def _differences(stored: Mapping[str, np.ndarray], needed: dict[str, Any]) -> list[str]:
    """What keeps stored arrays from filling the needed tree, in words."""
    words = [f"lacks {key}" for key in needed if key not in stored]
    words += [f"holds {key}, which is not needed" for key in stored if key not in needed]
    for key in needed:
        if key not in stored:
            continue
        leaf = needed[key] if hasattr(needed[key], "dtype") else np.asarray(needed[key])
        here, there = (stored[key].shape, stored[key].dtype), (leaf.shape, leaf.dtype)
        if here[0] != there[0]:
            words.append(f"holds {key} {here[0]}, this configuration needs {there[0]}")
        elif here[1] != there[1]:
            words.append(f"holds {key} as {here[1]}, this configuration needs {there[1]}")
    return words
