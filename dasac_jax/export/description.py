"""What an exported file says of itself: its input and outputs, the classes, where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.inference import trained_network
from dasac_jax.inference.predictor import SMALLEST
from dasac_jax.version import __version__

OUTPUTS = {
    "labels": "(batch, height, width) uint8: the class of each pixel, an index into class_names",
    "logits": "(batch, height, width, classes) float32: class scores before the softmax",
    "probabilities": "(batch, height, width, classes) float32: class scores that add up to 1",
}
_COPIED = ("arch", "num_classes", "stage", "step", "epoch", "best_score", "origin", "drawn")


def of(
    facts: trained_network.Facts, *, teacher: bool, outputs: Sequence[str], precision: str
) -> dict[str, Any]:
    """What the file's metadata hold, JSON values by name.

    facts: the checkpoint's metadata. precision: of the network's layers. The licence is the one
    that the facts name for the weights.
    """
    copied = {key: facts[key] for key in _COPIED if facts.get(key) is not None}
    return {
        "input": "images: (batch, height, width, 3) uint8, RGB, 0 to 255 as in an image file",
        "outputs": {name: OUTPUTS[name] for name in outputs},
        "normalisation": {
            "where": "inside the network: (images / 255 - mean) / std",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
        "smallest_side": SMALLEST,
        "class_names": trained_network.class_names(facts),
        "palette": trained_network.class_palette(facts).tolist(),
        "network": "teacher" if teacher else "student",
        "precision": precision,
        **copied,
        "licence": facts.get("licence") or "unknown: the checkpoint does not name one",
        "producer": f"dasac-jax {__version__}",
    }
