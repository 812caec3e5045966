"""What predicting a set of images leaves in a folder, and how it goes on after a stop."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.files import replacing
from dasac_jax.inference.image_files import ImageFile, read_image
from dasac_jax.inference.predictor import Prediction, Start
from dasac_jax.inference.streaming import stream
from dasac_jax.reporting import label_pictures

KINDS = ("labels", "cityscapes_ids", "overlay", "confidence", "probabilities")
"""What can be written, each to a folder of this name."""

RECORD_FILE = "prediction.json"
ZIP_FILE = "cityscapes_ids.zip"

_SUFFIX = {"probabilities": ".npz"}
_CITYSCAPES = re.compile(r"^([^_]+_\d{6}_\d{6})(_|$)")  # city, sequence, frame
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # always the same, so that equal predictions give equal files


@dataclass(frozen=True)
class Look:
    """How classes are shown: names (C,) and colours (C, 3) uint8."""

    names: tuple[str, ...]
    colours: np.ndarray


def target(folder: Path, image: ImageFile, kind: str) -> Path:
    """Where an image's file of a kind goes: the image's name below the kind's folder.

    Files for the evaluation server are called <city>_<sequence>_<frame>_labelIds.png where the
    image's own name begins like that.
    """
    name = PurePosixPath(image.name)
    if kind == "cityscapes_ids" and (match := _CITYSCAPES.match(name.name)):
        name = name.with_name(f"{match[1]}_labelIds")
    return folder / kind / name.parent / (name.name + _SUFFIX.get(kind, ".png"))


def check(
    images: Sequence[ImageFile], kinds: Collection[str], class_names: Sequence[str], *, zipped: bool
):
    """Raise UserError where files for the evaluation server cannot be made of these images."""
    if "cityscapes_ids" not in kinds:
        return
    if tuple(class_names) != labels.CLASS_NAMES:
        raise UserError(
            f"the checkpoint has {len(class_names)} classes of its own ({class_names[0]}, …): "
            f"Cityscapes ids stand for Cityscapes' {labels.NUM_CLASSES} classes"
        )
    taken: dict[str, ImageFile] = {}
    for image in images:
        path = target(Path(), image, "cityscapes_ids")
        if zipped and not _CITYSCAPES.match(PurePosixPath(image.name).name):
            raise UserError(
                f"image {image.path}: the evaluation server takes images whose names begin with "
                "<city>_<6 digits>_<6 digits>; leave out --zip"
            )
        key = path.name if zipped else str(path)
        if key in taken:
            raise UserError(
                f"{taken[key].path} and {image.path} would both be {key}: "
                "predict them to different folders"
            )
        taken[key] = image


def claim(folder: Path, record: dict[str, Any]) -> None:
    """Write down what a folder's predictions are of; JSON values by name.

    Raises UserError when it holds those of another network or made in another way, so that no
    folder mixes two, and when it cannot be written.
    """
    record = json.loads(json.dumps(record))
    path = folder / RECORD_FILE
    try:
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key in record if stored.get(key) != record[key]]
            if differing:
                key = differing[0]
                raise UserError(
                    f"--output {folder} holds other predictions ({key}: {stored.get(key)} there, "
                    f"{record[key]} here): choose another folder, or remove this one"
                )
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        _replace(path, lambda file: file.write(text.encode()))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read or written: {error}") from error


def unfinished(folder: Path, images: Sequence[ImageFile], kinds: Collection[str]):
    """The images of which a file is missing. There are no half-written files."""
    return [
        image for image in images if not all(target(folder, image, kind).exists() for kind in kinds)
    ]


def predict_files(
    start: Start,
    images: Sequence[ImageFile],
    folder: Path,
    kinds: Collection[str],
    look: Look,
    *,
    batch: int,
) -> Iterator[int]:
    """Predict images and write what is not there yet; reading, computing and writing overlap.

    start: see `prediction.predictor`; batch: as many images as it takes. Yields how many images
    are done. Raises UserError for an image that cannot be read and for a folder that cannot be
    written; every file that is there is whole.
    """

    def write(image: ImageFile, pixels: np.ndarray, found: Prediction, place: int) -> None:
        for kind in kinds:
            path = target(folder, image, kind)
            if not path.exists():
                save = _saver(kind, pixels, found, place, look)
                try:
                    _replace(path, save)
                except OSError as error:
                    raise UserError(f"cannot write {path}: {error}") from error

    return stream(
        images, read=lambda image: read_image(image.path), start=start, write=write, batch=batch
    )


def write_zip(folder: Path, images: Sequence[ImageFile]) -> Path:
    """All images' files for the evaluation server in one archive, without folders."""
    path = folder / ZIP_FILE

    def save(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for part in sorted(target(folder, image, "cityscapes_ids") for image in images):
                archive.writestr(zipfile.ZipInfo(part.name, _ZIP_DATE), part.read_bytes())

    try:
        _replace(path, save)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    return path


def _saver(kind, pixels, found: Prediction, place: int, look: Look) -> Callable[[BinaryIO], Any]:
    """A function that writes one file of an image to an open file."""
    if kind == "probabilities":
        return lambda file: np.savez_compressed(
            file, probabilities=found.probabilities[place], classes=np.array(look.names)
        )
    if kind == "labels":
        pixels = found.labels[place]
    elif kind == "cityscapes_ids":
        pixels = labels.label_ids(found.labels[place])
    elif kind == "confidence":
        pixels = np.round(found.confidence[place] * 255).astype(np.uint8)
    else:
        pixels = _overlay(pixels, found.labels[place], look)
    return lambda file: Image.fromarray(pixels).save(file, "png")


def _overlay(pixels: np.ndarray, train_ids: np.ndarray, look: Look) -> np.ndarray:
    """The image under its classes' colours, above the legend: (H', W, 3) uint8."""
    classes = [
        labels.Class(name, i, i, tuple(colour.tolist()))
        for i, (name, colour) in enumerate(zip(look.names, look.colours, strict=True))
    ]
    mixed = label_pictures.overlay(pixels, train_ids, classes=classes)
    return np.concatenate([mixed, label_pictures.legend(pixels.shape[1], classes)])


def _replace(path: Path, save: Callable[[BinaryIO], Any]) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, open(unfinished, "wb") as file:
        save(file)
