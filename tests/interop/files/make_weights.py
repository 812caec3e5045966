"""How cs_weights_*.data were made: run with PyTorch installed. Kept so that others can judge them.

As the authors' program does it: pixels of each class in each mask, divided by those in all masks,
keyed by NumPy scalars; a mask lacks the classes that it has no pixel of.
"""

from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
COUNTS = {
    "aachen_000000_000019": {0: 30, 1: 5, 18: 2},
    "aachen_000001_000019": {0: 10, 13: 7},
    "zurich_000000_000019": {0: 60, 1: 15, 18: 6, 16: 1},
}


def shares() -> dict:
    total = dict.fromkeys(range(19), 0)
    for counts in COUNTS.values():
        for label, count in counts.items():
            total[label] += count
    return {
        f"{name}_gtFine_labelIds.png": {
            np.uint8(label): np.float64(count) / total[label] for label, count in counts.items()
        }
        for name, counts in reversed(COUNTS.items())
    }


if __name__ == "__main__":
    torch.save(shares(), FOLDER / "cs_weights_small.data")
    torch.save(
        shares(), FOLDER / "cs_weights_small_legacy.data", _use_new_zipfile_serialization=False
    )
