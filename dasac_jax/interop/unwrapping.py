"""The state_dict inside what torch.save was given, and its names without what wrappers added."""

from __future__ import annotations

from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop.fitting import Arrays, listed

# Keys under which a file may hold its network, the likelier ones first.
_KEYS = ("model", "state_dict", "model_state_dict", "net", "network", "student")
_AUTHORS_KEYS = ("model", "state_dict")
_BESIDE = ("opt", "score", "epoch")  # what the authors' snapshots hold beside it
_DEPTH = 3  # of dictionaries in one another
# Parts of names that come from wrappers around a network or its parts: DataParallel and SWA's
# averages, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_AVERAGED = "n_averaged"  # SWA's count of the states that were averaged


def unwrapped(loaded: Any) -> tuple[dict[Any, Any], dict[str, Any], tuple[str, ...]]:
    """(state_dict, the values beside it that are used, notes on those that are not) of a file.

    loaded: nested dictionaries and lists of numpy arrays and scalars. Used are those of the
    authors' snapshots: opt, score, epoch. Raises UserError for a file without a dictionary, or
    with several networks of which none has a usual name.
    """
    if not isinstance(loaded, dict):
        raise UserError(
            f"it holds a {type(loaded).__name__}, not a network's state_dict: save "
            "network.state_dict()"
        )
    found = dict(_state_dicts(loaded, (), _DEPTH))
    if not found:
        inside = [key for key in _AUTHORS_KEYS if isinstance(loaded.get(key), dict)]
        return (loaded[inside[0]] if inside else loaded), {}, ()
    path = _chosen(list(found))
    if not path:
        values = [key for key in loaded if isinstance(key, str) and _is_beside(key, loaded[key])]
        entries = {key: value for key, value in loaded.items() if key not in values}
        notes = (f"{listed('left out', map(repr, values))} (no tensors)",) if values else ()
        return entries, {}, notes
    rest = [key for key in loaded if key != path[0]]
    is_authors = path[0] in _AUTHORS_KEYS and len(path) == 1
    if is_authors and ("opt" in rest or set(rest) <= set(_BESIDE)):
        beside = {key: loaded[key] for key in rest if key in _BESIDE}
    else:  # another program's counts of epochs mean nothing to a stage of training here
        beside = {}
    place = ".".join(map(str, path))
    left = [repr(key) for key in rest if key not in beside]
    left += [repr(".".join(map(str, other))) for other in found if other[:1] == path[:1] != other]
    left = [name for name in left if name != repr(place)]
    notes = (f"{listed('left out', left)} (beside {place!r}, which is taken)",) if left else ()
    return found[path], beside, notes


def plain_names(weights: dict[Any, Any]) -> Arrays:
    """A state_dict's arrays without the parts of their names that wrappers have added.

    Raises UserError for entries that are no arrays, and where two would get one name.
    """
    if not weights:
        raise UserError("it is not a network's state_dict: it is empty")
    arrays: Arrays = {}
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray | np.generic):
            raise UserError(
                f"it is not a network's state_dict: {key!r} is a {type(value).__name__}"
            )
        if key == _AVERAGED:
            continue
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in arrays:
            raise UserError(f"it holds {name} twice, also as {key}: save one network alone")
        arrays[name] = np.asarray(value)
    return arrays


def prefix_of(names: Any) -> str | None:
    """What stands before all names of the one network among `names`, as in "net."; often "".

    None where there is no network of a known kind. Raises UserError where there are several.
    """
    names = set(names)
    found = {
        first.removesuffix(ending)
        for ending, second in _FIRST_LAYERS.items()
        for first in names
        if first.endswith(ending) and first.removesuffix(ending) + second in names
    }
    found = {prefix for prefix in found if not prefix or prefix.endswith(".")}
    # The authors' own names of a ResNet begin with model. and the others' do not.
    found = {
        prefix.removesuffix("model.") if prefix.removesuffix("model.")[-1:] in ("", ".") else prefix
        for prefix in found
    }
    if len(found) > 1:
        raise UserError(
            f"it holds {len(found)} networks, whose names begin with "
            f"{', '.join(repr(prefix) for prefix in sorted(found))}: save one of them alone"
        )
    return next(iter(found), None)


# Names of a network's first convolution, and of another entry that tells it from those of blocks.
_FIRST_LAYERS = {
    "conv1.weight": "layer1.0.conv1.weight",
    "features.0.weight": "features.1.weight",
    "block1.0.weight": "block1.1.weight",
}


def _state_dicts(tree: dict[Any, Any], path: tuple, depth: int) -> Any:
    """(path, dictionary) of every dictionary that has arrays named ….weight or ….bias."""
    arrays = (key for key, value in tree.items() if isinstance(value, np.ndarray | np.generic))
    if any(isinstance(key, str) and key.endswith((".weight", ".bias")) for key in arrays):
        yield path, tree
    elif depth:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from _state_dicts(value, (*path, key), depth - 1)


def _is_beside(key: str, value: Any) -> bool:
    """Whether a value among a network's entries is no entry, by its name and what it is."""
    return "." not in key and not isinstance(value, np.ndarray | np.generic)


def _chosen(paths: list[tuple]) -> tuple:
    """The path of the network that is meant. Raises UserError where that cannot be told."""
    if len(paths) == 1:
        return paths[0]
    for key in _KEYS:
        named = [path for path in paths if path == (key,)]
        if named:
            return named[0]
    shown = ", ".join(repr(".".join(map(str, path))) for path in paths)
    raise UserError(f"it holds {len(paths)} networks, under {shown}: save one of them alone")
