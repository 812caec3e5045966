"""Initial values for layers that a PyTorch file lacks, drawn as the networks themselves do it."""

import re

import numpy as np

# These convolutions keep PyTorch's default initialisation, U(±1/√fan_in); the kernels of the other
# new layers are normal with a standard deviation of 0.01, or 0.1 behind a vision transformer.
_TORCH_DEFAULT = re.compile(r"features\.4[24]\.|vgg_head\.|head\.(up[12]|conv)\.")
_BEHIND_TRANSFORMER = "head."


def fresh(
    names: tuple[str, ...], shapes: dict[str, tuple[int, ...]], seed: int
) -> dict[str, np.ndarray]:
    """{name: float32 array} for the PyTorch entries `names` of new layers.

    shapes: {name: PyTorch's shape} of all entries of the network. The same seed and names give the
    same numbers.
    """
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, shapes) for name in names}


def _draw(rng: np.random.Generator, name: str, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    shape, (layer, kind) = shapes[name], name.rsplit(".", 1)
    kernel = shapes[f"{layer}.weight"]
    if len(kernel) != 4:  # a batch norm
        return np.full(shape, kind in ("weight", "running_var"), np.float32)
    if kind == "weight" and not _TORCH_DEFAULT.match(name):
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(0.1 if name.startswith(_BEHIND_TRANSFORMER) else 0.01)
        return values
    bound = np.float32(np.prod(kernel[1:]) ** -0.5)
    values = rng.random(shape, np.float32)
    values *= 2 * bound
    values -= bound
    return values
