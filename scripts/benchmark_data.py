"""What a step's data costs the host, here and the original way; see docs/views.md.

python scripts/benchmark_data.py [--repeats 5] [--steps 2]
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageFilter

from dasac_jax.data import labels, loader, sampling
from dasac_jax.data.demo import render
from dasac_jax.data.pairs import PairSource
from dasac_jax.data.preparation.train_ids import prepare_gta
from dasac_jax.image import views
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, source_statistics
from dasac_jax.runtime import data_parallel

SOURCE_BATCH, GROUPS, VIEWS = 8, 2, 4  # of the published recipes
SOURCE_SCALE, TARGET_SCALE, ZOOM, JITTER, HUE = (0.5, 1.0), (1.0, 1.1), (0.5, 1.0), 0.4, 0.1
GRAIN = 1.0  # noise that makes the files as large as the real sets' (2.3 MB on average)
MIRROR, NEAREST, LINEAR = (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Resampling.NEAREST, Image.Resampling.BILINEAR,
)  # fmt: skip

Size = tuple[int, int]
Rng = np.random.Generator


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        source, target = make_data(Path(folder), options.source_size, options.target_size)
        print(_setting(source, target, options))
        crop, rng = options.crop, np.random.default_rng(0)
        raw = next(batches(source, target, 1))
        parts = ("source_image", "source_label", "target_image")
        decoded = [[Image.fromarray(x) for x in raw[part]] for part in parts]
        make_views = device_views(raw, crop)
        works = {
            "decode": (partial(decode, source, target), partial(read_items, source, target)),
            "host": (
                lambda: original_step(*open_step(source, target), crop, rng),
                lambda: list(batches(source, target, 1)),
            ),
            "views": (
                lambda: original_step(*decoded, crop, rng),
                lambda: jax.block_until_ready(make_views()),
            ),
        }
        seconds = measure(works, options.repeats, options.steps)
    print(table(seconds))


def measure(
    works: dict[str, tuple[Callable[[], Any], Callable[[], Any]]], repeats: int, steps: int
) -> dict[str, tuple[float, float]]:
    """Seconds per step, original way and here: medians over repeats taken in turn.

    Of this process's cores together; of the clock for views on an accelerator.
    """
    taken: dict[str, tuple[list, list]] = {name: ([], []) for name in works}
    for repeat in range(repeats + 1):
        for name, ways in works.items():
            for way, work in enumerate(ways):
                away = name == "views" and way == 1 and jax.default_backend() != "cpu"
                clock = time.perf_counter if away else time.process_time
                started = clock()
                for _ in range(steps):
                    work()
                if repeat:  # the first one warms up and compiles
                    taken[name][way].append((clock() - started) / steps)
    return {name: tuple(map(statistics.median, ways)) for name, ways in taken.items()}


def table(seconds: dict[str, tuple[float, float]]) -> str:
    """What was measured, in words and columns."""
    device, items = jax.default_backend(), SOURCE_BATCH + GROUPS
    rows = {
        "decode": "decoding 8 + 2 images, 8 labels",
        "host": "full host path",
        "views": f"views alone; here on the {device}",
    }
    lines = [
        f"{'':36}  core-seconds per step   images/s/core",
        f"{'':36}  original     here       original   here",
    ]
    for name, title in rows.items():
        old, new = seconds[name]
        rates = f"{items / old:8.1f} {items / new:6.1f}"
        lines.append(f"{title:36}  {old:8.3f} {new:8.3f}       {rates}")
    old, new = seconds["host"]
    lines.append(f"\nhost core-seconds: {old / new:.1f} times fewer than the original way")
    if device == "cpu":
        both = new + seconds["views"][1]
        lines.append(
            f"without an accelerator host and views together: {both:.3f} core-seconds per step, "
            f"{both / old:.1f} times the original way's"
        )
    return "\n".join(lines)


def make_data(folder: Path, source_size: Size, target_size: Size) -> tuple[PairSource, PairSource]:
    """A step's images of both domains: the demo's scenes enlarged, with noise like a camera's."""
    numbers = {"num_source": SOURCE_BATCH, "num_train": GROUPS, "num_val": 1, "num_test": 1}
    render.render(folder, height=128, width=256, workers=1, **numbers)
    prepare_gta(folder)
    rng = np.random.default_rng(0)
    source, target = [], []
    for path in sorted((folder / "game/images").glob("*.png")):
        enlarge(path, source_size, rng)
        label = folder / "game/labels_cs" / path.name
        Image.open(label).resize(source_size[::-1], NEAREST).save(label)
        source.append((str(path.relative_to(folder)), str(label.relative_to(folder))))
    for path in sorted((folder / "cityscapes/leftImg8bit/train").rglob("*.png")):
        enlarge(path, target_size, rng)
        target.append((str(path.relative_to(folder)), None))
    return (
        PairSource(str(folder), tuple(source), source_size, "source"),
        PairSource(str(folder), tuple(target), target_size, "target"),
    )


def enlarge(path: Path, size: Size, rng: Rng) -> None:
    """Replace an image by a larger one with noise."""
    image = np.asarray(Image.open(path).resize(size[::-1], Image.Resampling.BICUBIC))
    noise = GRAIN * (0.8 * rng.normal(size=(*size, 1)) + 0.6 * rng.normal(size=(*size, 3)))
    Image.fromarray(np.clip(np.round(image + noise), 0, 255).astype(np.uint8)).save(path)


def batches(source: PairSource, target: PairSource, steps: int):
    """The training loader's batches."""
    layout = data_parallel.layout(
        "adapt", SOURCE_BATCH, GROUPS, VIEWS, devices=1, local_devices=1, process=0
    )
    sampler = sampling.target_sampler(len(target), None, labels.NUM_CLASSES)
    return loader.batches(source, target, layout, sampler, seed=0, first_step=0, num_steps=steps)


def read_items(source: PairSource, target: PairSource) -> None:
    """Decode a step's images as the loader does, one after another."""
    for pairs in (source, target):
        for item in range(len(pairs)):
            pairs[item]


def device_views(raw: dict[str, Any], crop: Size):
    """The compiled view maker of the adaptation's step, its input already on the device."""
    mean, std = source_statistics("gta5")
    make = partial(
        views.adapt_views, size=crop, num_views=VIEWS, source_scale=SOURCE_SCALE,
        target_scale=TARGET_SCALE, zoom=ZOOM, jitter=JITTER, hue=HUE,
        source_mean=mean, source_std=std,
    )  # fmt: skip
    arrays = {name: raw[name] for name in raw if name not in ("names", "target_item")}
    arrays["target_view"] = np.arange(GROUPS * VIEWS, dtype=np.int32)
    compiled, steps, on_device = jax.jit(make), itertools.count(), jax.device_put(arrays)
    return lambda: compiled(jax.random.key(next(steps)), on_device)


# The original way: a worker makes every view of its items with Pillow, one after another.


def open_step(source: PairSource, target: PairSource):
    """A step's images and labels, not yet decoded."""
    images = [Image.open(Path(source.root) / image) for image, _ in source.pairs]
    labels = [Image.open(Path(source.root) / label) for _, label in source.pairs]
    return images, labels, [Image.open(Path(target.root) / image) for image, _ in target.pairs]


def decode(source: PairSource, target: PairSource) -> None:
    """Decode a step's images with Pillow."""
    images, labels, targets = open_step(source, target)
    for image in (*(image.convert("RGB") for image in images + targets), *labels):
        np.asarray(image)


def original_step(images, labels, targets, crop: Size, rng: Rng) -> list[np.ndarray]:
    """A step's normalised views from files or decoded images, collated."""
    mean, std = source_statistics("gta5")
    sources = [
        original_source(image.convert("RGB"), label, crop, rng)
        for image, label in zip(images, labels, strict=True)
    ]
    groups = [original_group(image.convert("RGB"), crop, rng) for image in targets]
    return [
        np.stack([tensor(image, mean, std) for image, _ in sources]),
        np.stack([np.asarray(label, np.int64) for _, label in sources]),
        np.stack([tensor(view, IMAGENET_MEAN, IMAGENET_STD) for g in groups for view, _ in g]),
        np.stack([tensor(noisy, IMAGENET_MEAN, IMAGENET_STD) for g in groups for _, noisy in g]),
    ]


def original_source(image, label, crop: Size, rng: Rng):
    """Scale, flip, crop with padding."""
    scale = rng.uniform(*SOURCE_SCALE)
    size = tuple(int(scale * n) for n in image.size)
    image, label = image.resize(size, LINEAR), label.resize(size, NEAREST)
    if rng.random() < 0.5:
        image, label = image.transpose(MIRROR), label.transpose(MIRROR)
    box = _box(size, crop, rng)
    canvas = Image.new("L", crop[::-1], 255)
    canvas.paste(label, (-box[0], -box[1]))
    return image.crop(box), canvas


def original_group(image, crop: Size, rng: Rng):
    """The views of one target image, each as the teacher and as the student sees it."""
    image = image.resize(crop[::-1], LINEAR)
    scale = rng.uniform(*TARGET_SCALE)
    image = image.resize(tuple(int(scale * n) for n in image.size), LINEAR)
    image = image.crop(_box(image.size, crop, rng))
    if rng.random() < 0.5:
        image = image.transpose(MIRROR)
    made = []
    for place in range(VIEWS):
        view = image.transpose(MIRROR) if rng.random() < 0.5 else image
        if place:
            scale = rng.uniform(*ZOOM)
            shape = tuple(int(scale * n) for n in crop)
            box = _box(view.size, shape, rng)
            view = view.resize(crop[::-1], LINEAR, box=box)
        made.append((view, noisy(view, rng)))
    return made


def noisy(view, rng: Rng):
    """Blur always, colour jitter half the time, grey one time in five."""
    view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    if rng.random() < 0.5:
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None)
        for kind in rng.permutation(np.array(kinds, object)):
            if kind is None:
                view = turned(view, rng.uniform(-HUE, HUE))
            else:
                view = kind(view).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return view.convert("L").convert("RGB") if rng.random() < 0.2 else view


def turned(view, turn: float):
    """Another hue."""
    hue, saturation, value = view.convert("HSV").split()
    hue = Image.fromarray(np.asarray(hue) + np.uint8(round(turn * 255) % 256))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def tensor(image, mean, std) -> np.ndarray:
    """(3, H, W) float32, normalised."""
    pixels = np.asarray(image, np.float32)
    pixels -= 255 * np.asarray(mean, np.float32)
    pixels /= 255 * np.asarray(std, np.float32)
    return pixels.transpose(2, 0, 1)


def _box(size: Size, crop: Size, rng: Rng):
    """Left, top, right, bottom of a crop (h, w) at random; negative where it has to pad."""
    gaps = [size[0] - crop[1], size[1] - crop[0]]
    left, top = (int(np.sign(gap)) * int(rng.integers(abs(gap) + 1)) for gap in gaps)
    return left, top, left + crop[1], top + crop[0]


def _setting(source: PairSource, target: PairSource, options) -> str:
    files = []
    for pairs in (source, target):
        total = sum((Path(pairs.root) / image).stat().st_size for image, _ in pairs.pairs)
        files.append(f"{pairs.size[0]}x{pairs.size[1]} of {total / len(pairs) / 1e6:.1f} MB")
    return (
        f"Pillow {PIL.__version__}, JAX {jax.__version__}; a step: {SOURCE_BATCH} source and "
        f"{GROUPS} target images, {VIEWS} views each, {options.crop[0]}x{options.crop[1]}\n"
        f"PNG files {files[0]} and {files[1]}; medians of {options.repeats} times "
        f"{options.steps} steps\n"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="medians are taken of (5)")
    parser.add_argument("--steps", type=int, default=2, help="steps in a repeat (2)")
    sizes = {"source-size": "1052x1914", "target-size": "1024x2048", "crop": "512x1024"}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=_size, default=default, metavar="HxW", help=default)
    return parser.parse_args(arguments)


def _size(text: str) -> Size:
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    main()
