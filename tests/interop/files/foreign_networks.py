"""DeepLabv2 files of the small demo network as other repositories train and save theirs.

Tests read this file with `runpy`: it is no package that one could import from.
"""

import numpy as np
from PIL import Image

from dasac_jax.interop.names import entries

DEMO = "deeplabv2_demo"
BGR_MEAN = np.array([104.00698793, 116.66876762, 122.67891434])
CLASSES = 19


def photographs(count=3, size=(64, 96), seed=0):
    """(count, h, w, 3) uint8 RGB: smooth like photographs, with edges and a little colour."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        grey, colour = np.zeros((*size, 1)), np.zeros((*size, 3))
        for cells, strength in ((3, 60), (8, 30), (24, 12)):
            for part, channels in ((grey, 1), (colour, 3)):
                noise = rng.normal(0, strength * (1 if channels == 1 else 0.25), (cells, cells, 3))
                layers = [
                    Image.fromarray(noise[..., c].astype(np.float32)).resize(size[::-1], 3)
                    for c in range(channels)
                ]
                part += np.stack([np.asarray(layer) for layer in layers], -1)
        found.append(np.clip(np.array([96.0, 92.0, 85.0]) + grey + colour, 0, 255))
    return np.stack(found).astype(np.uint8)


def levels(images):
    """What these networks take: (B, 3, h, w) float32, BGR minus a mean."""
    return (images[..., ::-1] - BGR_MEAN).transpose(0, 3, 1, 2).astype(np.float32)


def normalised(images):
    """What the authors' networks take: (B, 3, h, w) float32, RGB by ImageNet's statistics."""
    scaled = (images / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return scaled.transpose(0, 3, 1, 2).astype(np.float32)


def state_dict(*, takes=levels, branches=4, early_head=False, seed=0):
    """{name: array} without "model.", its first norm fitting to what the network `takes`.

    branches: how many of the head were trained. early_head: whether there is one on layer3, too.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in entries(DEMO, CLASSES).items():
        name = name.removeprefix("model.")
        if name.startswith("layer5."):
            out |= _head(rng, name, shape, branches, "layer6" if early_head else "layer5")
            if early_head:
                early = (shape[0], shape[1], *shape[2:]) if len(shape) == 4 else shape
                out |= _head(rng, name, early, branches, "layer5")
        elif len(shape) == 4:
            out[name] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        elif name.endswith(("running_var", "weight")):
            out[name] = rng.uniform(0.8, 1.2, shape)
        else:
            out[name] = rng.normal(0, 0.1, shape)
    results = convolved(takes(photographs(seed=9)), out["conv1.weight"])
    out["bn1.running_mean"] = results.mean((0, 2, 3))
    out["bn1.running_var"] = results.var((0, 2, 3))
    return {name: array.astype(np.float32) for name, array in out.items()}


def _head(rng, name, shape, branches, layer):
    branch = int(name.split(".")[2])
    name = layer + name.removeprefix("layer5")
    if name.endswith("bias"):
        bound = (9 * 128) ** -0.5
        return {name: rng.uniform(-bound, bound, shape)}
    return {name: rng.normal(0, 0.01, shape) * (1.3 if branch < branches else 1)}


def convolved(inputs, kernel):
    """(B, 3, h, w) and (O, 3, 7, 7) → (B, O, h', w'), stride 2, padded by 3 zeros."""
    padded = np.pad(inputs, ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3))[:, :, ::2, ::2]
    return np.einsum("bchwij,ocij->bohw", windows, kernel, optimize=True)


def logits(torch, arrays, inputs, *, branches=4, head="layer5", around=None):
    """The network's logits in PyTorch: (B, 3, h, w) → (B, C, h', w').

    around: (3,) values that the first convolution pads with, by default zeros.
    """
    functional = torch.nn.functional
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}

    def conv_norm(x, conv, norm, stride=1, padding=0, dilation=1):
        x = functional.conv2d(
            x, tensors[f"{conv}.weight"], None, stride, padding, dilation
        )  # fmt: skip
        kinds = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[f"{norm}.{kind}"] for kind in kinds))

    x = torch.tensor(inputs)
    if around is not None:
        x = torch.stack(
            [functional.pad(x[:, c], (3, 3, 3, 3), value=float(around[c])) for c in range(3)], 1
        )
    x = conv_norm(x, "conv1", "bn1", 2, 0 if around is not None else 3).relu()
    x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for stage, (blocks, stride, dilation) in enumerate(
        ((1, 1, 1), (1, 2, 1), (2, 1, 2), (1, 1, 4)), start=1
    ):
        for block in range(blocks):
            at, step = f"layer{stage}.{block}", stride if block == 0 else 1
            y = conv_norm(x, f"{at}.conv1", f"{at}.bn1", step).relu()
            y = conv_norm(y, f"{at}.conv2", f"{at}.bn2", 1, dilation, dilation).relu()
            y = conv_norm(y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = conv_norm(x, f"{at}.downsample.0", f"{at}.downsample.1", step)
            x = (x + y).relu()
    parts = [
        functional.conv2d(
            x, tensors[f"{head}.conv2d_list.{i}.weight"], tensors[f"{head}.conv2d_list.{i}.bias"],
            1, rate, rate,
        )
        for i, rate in list(enumerate((6, 12, 18, 24)))[:branches]
    ]  # fmt: skip
    return sum(parts).numpy()
