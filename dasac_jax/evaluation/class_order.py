"""Classes that are the same in another order: compared by name, not by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dasac_jax.errors import UserError


def check_same(path: Path, own: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError where predictions have other classes than those that are to be scored.

    path: of the checkpoint or the folder. own: its classes. names: those to be scored. The order
    may differ.
    """
    if len(own) != len(names):
        raise UserError(
            f"{path} has {len(own)} classes ({', '.join(own)}), but {len(names)} are to be scored: "
            f"{', '.join(names)}"
        )
    other = [name for name in own if name not in names]
    if other:
        raise UserError(
            f"{path} has the class {other[0]!r}, which is none of those to be scored: "
            f"{', '.join(names)}; only results of the same classes compare"
        )


def by_name(counts: np.ndarray, own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Counts (C, C + 1) whose columns are in the order `own`, with columns in that of `names`.

    The last column, of what was predicted as no class, stays the last.
    """
    return counts[:, [*(list(own).index(name) for name in names), len(names)]]
