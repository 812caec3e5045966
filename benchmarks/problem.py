"""What is computed on both sides: weights, inputs and settings as pure functions of names and
sizes, in numpy, so that neither side needs the other's framework.
"""

import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CLASSES = 19
GROUP_SIZE = 4
LEARNING_RATE = 2.5e-4
ADAMW_DECAY = 0.01
ENCODER_RATE = 0.1  # the share of an encoder that AdamW trains
TARGET_WEIGHT = 5.0
THRESHOLD_UPPER = 0.75
THRESHOLD_LOWER = 0.2
BETA = 1e-3
FOCAL_POWER = 3.0
PRIOR_MOMENTUM = 0.99
TEACHER_EVERY = 100
TEACHER_MOMENTUM = 0.99


@dataclass(frozen=True)
class Problem:
    """task: step or predict. The batch is `source` images and `groups` × 4 views; or one image."""

    task: str
    network: str
    height: int
    width: int
    source: int
    groups: int
    dtype: str  # float32, tf32 (GPU only) or bfloat16
    device: str  # cpu or gpu
    inner: int  # steps, or images, between two readings of the clock
    remat: bool = False  # on our side: activations computed anew for the gradient
    accumulate: int = 1  # on our side: parts that a step takes its batch in

    @property
    def images(self) -> int:
        """Images of one step: those that the student learns from."""
        return 1 if self.task == "predict" else self.source + self.groups * GROUP_SIZE

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of PyTorch's state_dict entry `name`, such that activations stay healthy."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if leaf == "gamma":  # of a transformer's layer scale
        return random.uniform(0.05, 0.3, shape).astype(np.float32)
    if leaf in ("cls_token", "pos_embed", "mask_token"):
        return np.float32(0.1) * random.standard_normal(shape, np.float32)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        # The last norm of a block is damped: 33 blocks would add up otherwise.
        damp = 0.25 if ".bn3." in name and leaf == "weight" else 1.0
        return (damp * random.uniform(0.5, 1.5, shape)).astype(np.float32)
    if leaf in ("running_mean", "bias"):
        return random.uniform(-0.1, 0.1, shape).astype(np.float32)
    # Heads that are unsure, so that a few steps do not magnify rounding.
    head = any(part in name for part in ("conv2d_list", "score_pool", "vgg_head.8"))
    spread = (0.2 if head else 1.0) * np.sqrt(2 / np.prod(shape[1:]))
    return random.standard_normal(shape, np.float32) * np.float32(spread)


def adapt_batch(problem: Problem) -> dict[str, np.ndarray]:
    """A batch as `steps.adapt_step` takes it."""
    random = np.random.default_rng(0)
    views, size = problem.groups * GROUP_SIZE, (problem.height, problem.width)
    teacher = np.repeat(_images(random, problem.groups, size), GROUP_SIZE, axis=0)
    noise = random.standard_normal(teacher.shape, np.float32)
    labels = random.integers(0, CLASSES + 1, (problem.source, -(-size[0] // 8), -(-size[1] // 8)))
    labels = labels.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
    there, back = _matrices(random, views)
    return {
        "source_image": _images(random, problem.source, size),
        "source_label": np.where(labels == CLASSES, 255, labels).astype(np.int32),
        "teacher_view": teacher,
        "student_view": teacher + np.float32(0.1) * noise,
        "padded": random.random((views, *size)) < 0.02,
        "to_reference": there,
        "from_reference": back,
    }


def image(problem: Problem) -> np.ndarray:
    """(1, H, W, 3) uint8, to be predicted."""
    size = problem.height, problem.width
    smooth = _images(np.random.default_rng(0), 1, size)
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8)


def _images(random: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """(B, H, W, 3) float32: waves of several lengths, and noise, values about ±2."""
    y, x = np.linspace(0, 1, size[0])[:, None, None], np.linspace(0, 1, size[1])[None, :, None]
    out = 0.3 * random.standard_normal((count, *size, 3), np.float32)
    for one in out:
        for frequency in (1, 3, 9):
            down, across, phase = random.uniform(-1, 1, (3, 3))
            one += np.sin(2 * np.pi * (frequency * (down * y + across * x) + phase))
    return out


def _matrices(random: np.random.Generator, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Views to their frame and back (V, 2, 3): flips, zooms by 0.5 to 1, shifts."""
    scale = random.uniform(0.5, 1, views)
    flip = random.choice([-1.0, 1.0], views)
    shift = random.uniform(-1, 1, (views, 2)) * (1 - scale)[:, None]
    there, back = np.zeros((2, views, 2, 3))
    there[:, 0, 0], there[:, 0, 2] = flip / scale, -shift[:, 0] / scale
    there[:, 1, 1], there[:, 1, 2] = 1 / scale, -shift[:, 1] / scale
    back[:, 0, 0], back[:, 0, 2] = flip * scale, flip * shift[:, 0]
    back[:, 1, 1], back[:, 1, 2] = scale, shift[:, 1]
    return there.astype(np.float32), back.astype(np.float32)
