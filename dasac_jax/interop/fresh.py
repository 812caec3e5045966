"""Values for layers that a PyTorch file lacks, drawn as the networks draw theirs."""

import re

import numpy as np

# These start as PyTorch starts a convolution, U(±1/√fan_in); the other new ones normal with 0.01.
_TORCH_DEFAULT = re.compile(r"features\.4[24]\.|vgg_head\.")


def fresh(
    names: tuple[str, ...], shapes: dict[str, tuple[int, ...]], seed: int
) -> dict[str, np.ndarray]:
    """{name: float32 array} for PyTorch's entries `names` of new layers; shapes: of all entries."""
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, shapes) for name in names}


def _draw(rng: np.random.Generator, name: str, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    shape, (layer, leaf) = shapes[name], name.rsplit(".", 1)
    kernel = shapes[f"{layer}.weight"]
    if len(kernel) != 4:  # a batch norm
        return np.full(shape, leaf in ("weight", "running_var"), np.float32)
    if leaf == "weight" and not _TORCH_DEFAULT.match(name):
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(0.01)
        return values
    bound = np.float32(np.prod(kernel[1:]) ** -0.5)
    values = rng.random(shape, np.float32)
    values *= 2 * bound
    values -= bound
    return values
