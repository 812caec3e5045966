"""One view at a time: the view matrices undo what the transforms did."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import transforms
from dasac_jax.image.view_parameters import Window


def window(scale, offset, flip, size):
    lengths = [int(scale * n) for n in size]
    return Window(np.float32(scale), np.array(lengths), np.array(offset), np.array(flip))


WINDOWS = [
    (1.0, (0, 0), True),
    (0.6, (5, 3), False),
    (0.6, (5, 3), True),
    (0.75, (2, 27), True),
    (1.25, (-9, -4), True),
]


@jax.jit
def zoom_once(frame, zoom):
    size = frame.shape[:2]
    whole = tuple(jnp.ones(n, bool) for n in size)
    matrices = transforms.window_matrices(jax.tree.map(lambda x: x[None], zoom), size)
    return *transforms.zoom_view(frame, whole, zoom), *matrices


@pytest.mark.parametrize(("scale", "offset", "flip"), WINDOWS)
def test_matrices_undo_views(smooth, warp, eroded, scale, offset, flip):
    """Warped back, a view shows its group's frame inside the window, and with any sign of the
    matrix turned it does not."""
    size = (64, 128)
    frame = smooth(*size)
    zoom = window(scale, offset, flip, size)
    view, padded, *matrices = zoom_once(frame, zoom)
    to_reference, from_reference = (np.array(matrix[0]) for matrix in matrices)

    seen = eroded(warp(np.array(~padded)[..., None], to_reference)[..., 0] > 0.99)
    assert seen.mean() > 0.25

    def error(matrix):
        return np.abs(warp(view, matrix) - frame)[seen].max()

    assert error(to_reference) < 0.02
    for entry in zip(*np.nonzero(np.abs(to_reference) > 0.02), strict=True):
        wrong = to_reference.copy()
        wrong[entry] *= -1
        assert error(wrong) > 0.06, entry

    shown = eroded(np.array(~padded))
    assert np.abs(warp(frame, from_reference) - np.array(view))[shown].max() < 0.02
