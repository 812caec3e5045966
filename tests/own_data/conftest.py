"""Small data sets in the exact folders, names and pixel formats of known ones.

Each shows four classes (the mask two) in eight source and six target images, so that the networks
of all are alike and are compiled once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.own_data import command

SIZE = (40, 64)


class Layout(NamedTuple):
    """A layout: what makes it below a folder, the flags of `own`, and what comes out.

    make: called with the folder. flags: "{}" stands for the folder. names: the classes. source_ids:
    the first pairs of the id map. kind: "number" or "colour" of the source's labels.
    """

    make: object
    flags: str
    names: tuple[str, ...]
    source_ids: tuple


def scene(seed: int, values, look: int = 0):
    """An image (h, w, 3) and a label made of four values: (h, w) or (h, w, 3)."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    place = np.zeros(SIZE, int)
    place[: height // 2] = 1
    left = int(rng.integers(4, width // 2))
    place[10:30, left : left + 12] = 2
    place[30:, : left + 4] = 3
    place[:2] = 4
    colours = np.array([[60, 60, 60], [90, 130, 190], [190, 60, 40], [70, 150, 60], [9, 9, 9]])
    noise = rng.integers(-12, 12, (*SIZE, 3))
    image = np.clip(colours[place] + look + noise, 0, 255).astype(np.uint8)
    return image, np.array(values)[place]


def save(path: Path, array, dtype=np.uint8, palette=None) -> None:
    """An image file of an array; with a palette, one of its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array).astype(dtype))
    if palette is not None:
        image.putpalette(bytes(v for colour in palette for v in colour))
    image.save(path)


def camvid11(root: Path) -> None:
    """The SegNet tutorial's: ids 0 to 11 in folders with the ending "annot"."""
    for split, count, name in (("train", 8, "0001TP_{:06}"), ("test", 6, "0006R0_f{:05}")):
        for i in range(count):
            image, label = scene(i, [3, 0, 8, 5, 11], -30 * (split == "test"))
            save(root / f"CamVid/{split}/{name.format(30 * i)}.png", image)
            save(root / f"CamVid/{split}annot/{name.format(30 * i)}.png", label)


def camvid32(root: Path) -> None:
    """The original: RGB colour maps whose names end in _L."""
    road, sky, car, tree, void = (
        (128, 64, 128), (128, 128, 128), (64, 0, 128), (128, 128, 0), (0, 0, 0),
    )  # fmt: skip
    for sequence, count in (("0016E5", 8), ("Seq05VD_f", 6)):
        for i in range(count):
            image, label = scene(i, [road, sky, car, tree, void], -30 * (count == 6))
            if i == 0:
                label[20, 20:23] = (126, 66, 128)  # as resampling mixes colours
            save(root / f"701_StillsRaw_full/{sequence}{i:05}.png", image)
            save(root / f"LabeledApproved_full/{sequence}{i:05}_L.png", label)


def bdd100k(root: Path) -> None:
    """Masks of train ids for the source, RGBA colour maps for the target's labels."""
    for split, count in (("train", 8), ("val", 6)):
        for i in range(count):
            name = f"{i:08x}-7c39d841"
            image, ids = scene(i, [0, 10, 13, 8, 255], -30 * (split == "val"))
            _, colours = scene(
                i, [(128, 64, 128), (70, 130, 180), (0, 0, 142), (107, 142, 35), (0, 0, 0)]
            )
            opaque = np.full((*SIZE, 1), 255)
            save(root / f"bdd100k/images/10k/{split}/{name}.jpg", image)
            labels = root / "bdd100k/labels/sem_seg"
            save(labels / f"masks/{split}/{name}.png", ids)
            save(labels / f"colormaps/{split}/{name}.png", np.concatenate([colours, opaque], 2))


def idd(root: Path) -> None:
    """Polygons, level-3 ids and instances beside each other, in numbered folders."""
    base = root / "IDD_Segmentation"
    for split, count in (("train", 8), ("val", 6)):
        for i in range(count):
            drive, frame = i // 2, f"frame{29 * i:04}"
            image, ids = scene(i, [0, 25, 9, 24, 255], -30 * (split == "val"))
            save(base / f"leftImg8bit/{split}/{drive}/{frame}_leftImg8bit.png", image)
            truth = base / f"gtFine/{split}/{drive}"
            save(truth / f"{frame}_gtFine_labellevel3Ids.png", ids)
            save(truth / f"{frame}_gtFine_instancelevel3Ids.png", ids * 1000, np.uint16)
            (truth / f"{frame}_gtFine_polygons.json").write_text(json.dumps({"objects": []}))


def mapillary(root: Path) -> None:
    """16-bit instances: id × 256 + number of the object."""
    for split, count in (("training", 8), ("validation", 6)):
        for i in range(count):
            name = f"{i:02}_a8Jb-Lw0c9Tj4w"
            image, ids = scene(i, [13, 27, 55, 30, 65], -30 * (split == "validation"))
            numbers = np.arange(SIZE[1]) // 32 * (ids == 55)
            save(root / f"{split}/images/{name}.jpg", image)
            save(root / f"{split}/v1.2/instances/{name}.png", ids * 256 + numbers, np.uint16)


def acdc(root: Path) -> None:
    """Several label files for each frame; the fog is the source and the night the target."""
    for weather, count, drive in (("fog", 8, "GOPR0475"), ("night", 6, "GOPR0351")):
        for i in range(count):
            frame = f"{weather}/train/{drive}/{drive}_frame_{41 + i:06}"
            image, ids = scene(i, [7, 23, 26, 21, 0], -60 * (weather == "night"))
            _, train_ids = scene(i, [0, 10, 13, 8, 255])
            save(root / f"rgb_anon/{frame}_rgb_anon.png", image)
            save(root / f"gt/{frame}_gt_labelIds.png", ids)
            save(root / f"gt/{frame}_gt_labelTrainIds.png", train_ids)
            save(root / f"gt/{frame}_gt_labelColor.png", np.stack([ids] * 3, 2))


def mask(root: Path) -> None:
    """A mask of 0 and 255 for each photograph, named after it."""
    for folder, count in (("labelled", 8), ("new", 6)):
        for i in range(count):
            image, label = scene(i, [0, 0, 255, 0, 0], -30 * (folder == "new"))
            save(root / f"{folder}/photos/my photo {i}.JPG", image)
            save(root / f"{folder}/masks/my photo {i}_mask.png", label)


STREET = ("road", "vegetation", "sky", "car")
LAYOUTS = {
    "camvid11": Layout(
        camvid11,
        "--source-images {}/CamVid/train --source-labels {}/CamVid/trainannot "
        "--target-images {}/CamVid/test --target-labels {}/CamVid/testannot --classes camvid11",
        ("sky", "road", "tree", "car"),
        ((0, "sky"), (3, "road"), (5, "tree"), (8, "car")),
    ),
    "camvid32": Layout(
        camvid32,
        "--source-images {}/701_StillsRaw_full/0016E5* --source-labels {}/LabeledApproved_full "
        "--target-images {}/701_StillsRaw_full/Seq05VD* --target-labels {}/LabeledApproved_full "
        "--classes camvid32",
        ("Car", "Road", "Sky", "Tree"),
        (((64, 0, 128), "Car"), ((128, 64, 128), "Road")),
    ),
    "bdd100k": Layout(
        bdd100k,
        "--source-images {}/bdd100k/images/10k/train "
        "--source-labels {}/bdd100k/labels/sem_seg/masks/train "
        "--target-images {}/bdd100k/images/10k/val "
        "--target-labels {}/bdd100k/labels/sem_seg/colormaps/val --classes bdd100k",
        STREET,
        ((0, "road"), (8, "vegetation"), (10, "sky"), (13, "car")),
    ),
    "idd": Layout(
        idd,
        "--source-images {}/IDD_Segmentation/leftImg8bit/train "
        "--source-labels {}/IDD_Segmentation/gtFine/train "
        "--target-images {}/IDD_Segmentation/leftImg8bit/val "
        "--target-labels {}/IDD_Segmentation/gtFine/val --classes idd",
        ("road", "car", "vegetation", "sky or fallback background"),
        ((0, "road"), (9, "car"), (24, "vegetation")),
    ),
    "mapillary": Layout(
        mapillary,
        "--source-images {}/training/images --source-labels {}/training/v1.2/instances "
        "--target-images {}/validation/images --target-labels {}/validation/v1.2/instances "
        "--classes mapillary",
        (
            "construction--flat--road", "nature--sky", "nature--vegetation",
            "object--vehicle--car",
        ),
        (((3328, 3583), "construction--flat--road"),),
    ),
    "acdc": Layout(
        acdc,
        "--source-images {}/rgb_anon/fog/train --source-labels {}/gt/fog/train "
        "--target-images {}/rgb_anon/night/train --target-labels {}/gt/night/train --classes acdc",
        STREET,
        ((7, "road"), (21, "vegetation"), (23, "sky"), (26, "car")),
    ),
    "mask": Layout(
        mask,
        "--source-images {}/labelled/photos --source-labels {}/labelled/masks "
        "--target-images {}/new/photos --target-labels {}/new/masks",
        ("class 0", "class 255"),
        ((0, "class 0"), (255, "class 255")),
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def layouts() -> dict[str, Layout]:
    """The layouts by name."""
    return LAYOUTS


@pytest.fixture
def prepare(tmp_path, capsys) -> Callable[..., tuple[int, str]]:
    """prepare(flags, …): `own` with these flags; "{}" in them is the folder of the test.

    Returns the exit code, and all that was printed. Output goes to mine.
    """

    def run(flags: str, *more: str) -> tuple[int, str]:
        given = [flag.replace("{}", str(tmp_path)) for flag in flags.split()]
        capsys.readouterr()
        console = Console(width=160, force_terminal=False)
        arguments = ["own", *given, "--output", str(tmp_path / "mine"), *more]
        code = command.main(arguments, console=console)
        told = capsys.readouterr()
        return code, told.out + told.err

    return run
