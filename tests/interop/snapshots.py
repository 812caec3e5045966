"""Loaded snapshots as the authors' code saves them, with numbers of their own in every entry.

Made of the recorded names and shapes alone, so that nothing here follows the converter's idea of
them. Tests read this file with `runpy`: they are no package that one could import from.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = ("deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn")
NEW = re.compile(r"model\.layer5|classifier|features\.4[24]\.|vgg_head|score_pool")
CLASSES = 19


def shapes(arch):
    """{name: shape} of the authors' network, in their order, batch counters included."""
    recorded = json.loads((GOLDEN / f"state_dict_{arch}.json").read_text())
    return {name: tuple(shape) for name, shape in recorded.items()}


def state_dict(arch, seed=0, new=True):
    """{name: array} of the authors' network, each drawn by its name; without new layers at will."""
    return {
        name: np.asarray(seed + 5, np.int64)
        if name.endswith("num_batches_tracked")
        else _draw(name, shape, seed)
        for name, shape in shapes(arch).items()
        if new or not NEW.match(name)
    }


def _draw(name, shape, seed):
    """Numbers that come again after a prime count only: quickly made and quickly compressed."""
    tile = np.random.default_rng([seed, zlib.crc32(name.encode())]).random(1021, np.float32)
    return np.resize(tile, shape)


def groups(arch):
    """Names of the parameters in each group: (old, new layers) × (weights, biases)."""
    found = [[], [], [], []]
    for name in shapes(arch):
        if name.endswith((".weight", ".bias")):
            found[2 * bool(NEW.match(name)) + name.endswith(".bias")].append(name)
    return found


def optimiser(arch, seed=0):
    """The state of the authors' SGD, and its buffers by name."""
    sizes = shapes(arch)
    buffers, state, out, number = {}, {}, [], 0
    for names, rate, decay in zip(groups(arch), (1, 2, 10, 20), (5e-4, 0.0) * 2, strict=True):
        group = {"weight_decay": decay, "lr": 2.5e-4 * rate, "momentum": 0.9, "dampening": 0}
        out.append({**group, "nesterov": False, "params": []})
        for name in names:
            buffers[name] = _draw(name, sizes[name], seed)
            state[number] = {"momentum_buffer": buffers[name]}
            out[-1]["params"].append(number)
            number += 1
    return {"state": state, "param_groups": out}, buffers


def prefixed(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def baseline(arch):
    """A published baseline, loaded."""
    model = prefixed("module.backbone.", state_dict(arch, 1))
    return {"model": model, "opt": optimiser(arch, 3)[0], "score": 0.408, "epoch": 40}


def final(arch):
    """A published final snapshot, loaded."""
    snapshot = baseline(arch) | {"score": 0.538, "epoch": 136}
    snapshot["model"] |= {
        "module.running_conf": np.linspace(0.001, 0.4, CLASSES, dtype=np.float32),
        "module.slow_init": np.ones(1, np.float32),
        **prefixed("module.slow_net.", state_dict(arch, 2)),
    }
    return snapshot


def torchvision(arch):
    """torchvision's ImageNet network behind an architecture, loaded."""
    out = {}
    for name, array in state_dict(arch, new=False).items():
        name = re.sub(r"^model\.", "", name)
        name = re.sub(r"^block\d", "features", name)
        if arch == "deeplabv2_vgg16_bn":  # the pool after conv4, 33 in torchvision, is left out
            number = int(name.split(".")[1])
            name = name.replace(f".{number}.", f".{number + (number >= 33)}.")
        out[name] = array
    head = {"fc": (1000, 2048)} if "resnet" in arch else {
        "classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)
    }  # fmt: skip
    for layer, shape in head.items():
        out[f"{layer}.weight"] = np.broadcast_to(np.float32(0), shape)
        out[f"{layer}.bias"] = np.zeros(shape[0], np.float32)
    return out


def as_torch(torch, value):
    """The same nested value with tensors for arrays."""
    if isinstance(value, dict):
        return {key: as_torch(torch, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_torch(torch, inner) for inner in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
