"""Position embeddings for another grid of patches, as PyTorch interpolates them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_A = -0.75  # of PyTorch's cubic; that of `jax.image.resize` is -0.5


def bicubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Weights of bicubic interpolation: (size_out, size_in) float32.

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` to a given size: pixel
    centres at halves, border pixels repeated, no antialiasing.
    """
    # Positions in float32, as PyTorch computes them.
    scale = np.float32(size_in) / np.float32(size_out)
    place = scale * (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    below = np.floor(place)
    share = (place - below).astype(np.float64)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    for step in (-1, 0, 1, 2):
        column = np.clip(below.astype(int) + step, 0, size_in - 1)
        np.add.at(matrix, (rows, column), _cubic(np.abs(share - step)))
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    """The weight of a pixel at distance x, 0 to 2."""
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return np.where(x <= 1, near, far)


def resized_positions(grid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Position embeddings (h, w, D) for a grid of `size` (H, W): (H, W, D) float32.

    A grid of the same size is returned as it is; one with as many patches in another shape is
    interpolated like any other.
    """
    if grid.shape[:2] == tuple(size):
        return grid
    rows = bicubic_matrix(grid.shape[0], size[0])
    columns = bicubic_matrix(grid.shape[1], size[1])
    x = jnp.einsum("Hh,hwd->Hwd", rows, grid, precision=lax.Precision.HIGHEST)
    return jnp.einsum("Ww,Hwd->HWd", columns, x, precision=lax.Precision.HIGHEST)
