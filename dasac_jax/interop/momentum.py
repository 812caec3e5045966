"""The momentum buffers in the state_dict of PyTorch's SGD, by the names of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop.fitting import is_floating
from dasac_jax.interop.names import flax_path
from dasac_jax.method import optim

_SETTINGS = {"learning_rate": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}
_WEIGHTS_ALONE = "save the file without 'opt' to convert the weights alone"


def parameter_groups(arch: str, shapes: dict[str, tuple[int, ...]]) -> list[list[str]]:
    """The PyTorch names of the parameters in each of the authors' four groups, in PyTorch's order.

    shapes: {PyTorch name: shape} of the network in the order of definition.
    """
    groups: dict[str, list[str]] = {group: [] for group in optim.GROUPS}
    for name, shape in shapes.items():
        collection, path = flax_path(arch, name, len(shape))
        if collection == "params":
            groups[optim.group_of("/".join(path))].append(name)
    return list(groups.values())


def buffers(
    arch: str, shapes: dict[str, tuple[int, ...]], opt: Any
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """{PyTorch name: buffer} of an SGD's state_dict, and its settings.

    The settings are learning_rate, momentum and weight_decay of the first group. PyTorch numbers
    the parameters from group to group; old versions use arbitrary ids. A parameter without a buffer
    is left out: PyTorch would create it in the next step, equal to the gradient, and a buffer of
    zeros leads to the same. Raises UserError for another optimiser, other groups, and buffers that
    fit no parameter.
    """
    groups, state = _parts(opt)
    names = parameter_groups(arch, shapes)
    counts = [len(group["params"]) for group in groups]
    expected = [len(group) for group in names]
    if counts != expected:
        raise UserError(
            f"opt has groups of {counts} parameters, those of {arch} are {expected}: "
            f"it belongs to another network; {_WEIGHTS_ALONE}"
        )
    owners = {
        number: name
        for group, members in zip(groups, names, strict=True)
        for number, name in zip(group["params"], members, strict=True)
    }
    unknown = [number for number in state if number not in owners]
    if unknown or len(owners) != sum(counts):
        raise UserError(f"opt does not number its parameters uniquely ({unknown[:5]})")
    found = {}
    for number, name in owners.items():
        buffer = state.get(number, {}).get("momentum_buffer")
        if buffer is None:
            continue
        if not isinstance(buffer, np.ndarray) or not is_floating(buffer):
            raise UserError(f"opt: the momentum of {name} is no tensor of floating-point numbers")
        if buffer.shape != shapes[name]:
            raise UserError(
                f"opt: the momentum of {name} is {buffer.shape} instead of {shapes[name]}"
            )
        found[name] = buffer.astype(np.float32, copy=False)
    return found, {key: float(groups[0][ours]) for key, ours in _SETTINGS.items()}


def _parts(opt: Any) -> tuple[list[dict[str, Any]], dict[Any, dict[str, Any]]]:
    """The groups and the state of an SGD. Raises UserError for any other optimiser."""
    try:
        groups, state = list(opt["param_groups"]), dict(opt["state"])
        numbers = {number for group in groups for number in group["params"]}
        sgd = all("nesterov" in group for group in groups) and bool(numbers)
        sgd = sgd and all(set(entry) <= {"momentum_buffer"} for entry in state.values())
        if sgd:
            for key in _SETTINGS.values():
                float(groups[0][key])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"opt is not the state of a torch optimiser; {_WEIGHTS_ALONE}") from error
    if not sgd:
        kind = "Adam" if groups and "betas" in groups[0] else "another optimiser"
        raise UserError(f"opt is the state of {kind}, not of SGD; {_WEIGHTS_ALONE}")
    for key in ("nesterov", "dampening", "maximize"):
        if any(group.get(key) for group in groups):
            raise UserError(f"opt is an SGD with {key}, which is not offered; {_WEIGHTS_ALONE}")
    return groups, state
