"""The files that predicting a set of images writes, and the images that are still to be done."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.files import png, replacing, write_file
from dasac_jax.inference.image_files import ImageFile, read_image
from dasac_jax.inference.predictor import AsyncPredict, Prediction, check_finite
from dasac_jax.inference.streaming import stream
from dasac_jax.reporting import label_pictures

KINDS = ("labels", "cityscapes_ids", "overlay", "confidence", "probabilities")
"""The kinds of files that can be written for an image, each into a folder of this name."""

RECORD_FILE = "prediction.json"
"""What decides the predictions in a folder: network, weights, classes and options."""
ZIP_FILE = "cityscapes_ids.zip"

_SUFFIX = {"probabilities": ".npz"}
_CITYSCAPES = re.compile(r"^([^_]+_\d{6}_\d{6})(_|$)")  # city, sequence, frame
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that equal predictions give equal archives


def output_path(folder: Path, image: ImageFile, kind: str) -> Path:
    """The path of an image's file of a kind: the image's name below the kind's folder.

    Files for the evaluation server are called <city>_<sequence>_<frame>_labelIds.png where the
    image's own name begins like that.
    """
    name = PurePosixPath(image.name)
    if kind == "cityscapes_ids" and (match := _CITYSCAPES.match(name.name)):
        name = name.with_name(f"{match[1]}_labelIds")
    return folder / kind / name.parent / (name.name + _SUFFIX.get(kind, ".png"))


def check_server_names(
    images: Sequence[ImageFile], kinds: Collection[str], class_names: Sequence[str], *, zipped: bool
) -> None:
    """Raise UserError where files for the evaluation server cannot be made of these images.

    kinds: those that are wanted; without cityscapes_ids all is well. zipped: whether they go into
    one archive, where all names must follow the server's pattern and differ.
    """
    if "cityscapes_ids" not in kinds:
        return
    if tuple(class_names) != labels.CLASS_NAMES:
        raise UserError(
            f"the checkpoint has {len(class_names)} classes of its own ({class_names[0]}, …): "
            f"Cityscapes ids stand for Cityscapes' {labels.NUM_CLASSES} classes"
        )
    taken: dict[str, ImageFile] = {}
    for image in images:
        path = output_path(Path(), image, "cityscapes_ids")
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


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write to RECORD_FILE what decides a folder's predictions; JSON values by name.

    Raises UserError where the folder holds predictions of another network or other options, so
    that no folder mixes two, and where it cannot be written.
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
        write_file(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read or written: {error}") from error


def unfinished(
    folder: Path, images: Sequence[ImageFile], kinds: Collection[str]
) -> list[ImageFile]:
    """The images that lack a file of some kind. A file that exists is always complete."""
    return [
        image
        for image in images
        if not all(output_path(folder, image, kind).exists() for kind in kinds)
    ]


def predict_files(
    predict: AsyncPredict,
    images: Sequence[ImageFile],
    folder: Path,
    kinds: Collection[str],
    classes: Sequence[labels.Class],
    *,
    batch: int,
) -> Iterator[int]:
    """Predict images and write the files that do not exist; reading, computing and writing overlap.

    predict: as `predictor.create` makes it. classes: the network's, with names and colours.
    batch: the number of images that `predict` takes at a time. Yields the number of images done so
    far after each batch. Raises UserError for an image that cannot be read, for results that
    are not finite, and for a file that cannot be written; every file is complete or absent.
    """

    def write(image: ImageFile, pixels: np.ndarray, found: Prediction, index: int) -> None:
        check_finite(found.confidence[index], f"image {image.path}")
        for kind in kinds:
            path = output_path(folder, image, kind)
            if not path.exists():
                write_file(path, _content(kind, pixels, found, index, classes))

    return stream(
        images, read=lambda image: read_image(image.path), predict=predict, write=write, batch=batch
    )


def write_zip(folder: Path, images: Sequence[ImageFile]) -> Path:
    """Pack all images' files for the evaluation server in one archive, without folders.

    Returns its path. Raises UserError where it cannot be written.
    """
    path = folder / ZIP_FILE
    parts = sorted(output_path(folder, image, "cityscapes_ids") for image in images)
    try:
        with (
            replacing(path) as incomplete,
            zipfile.ZipFile(incomplete, "w", zipfile.ZIP_STORED) as archive,
        ):
            for part in parts:
                archive.writestr(zipfile.ZipInfo(part.name, _ZIP_DATE), part.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    return path


def _content(
    kind: str, pixels: np.ndarray, found: Prediction, index: int, classes: Sequence[labels.Class]
) -> bytes:
    """An image's file of a kind. pixels: the image (H, W, 3); index: its place in the batch."""
    if kind == "probabilities":
        file = io.BytesIO()
        names = np.array([entry.name for entry in classes])
        np.savez_compressed(file, probabilities=found.probabilities[index], classes=names)
        return file.getvalue()
    train_ids = found.labels[index]
    if kind == "labels":
        return png(train_ids)
    if kind == "cityscapes_ids":
        return png(labels.label_ids(train_ids))
    if kind == "confidence":
        return png(np.round(found.confidence[index] * 255))
    mixed = label_pictures.overlay(pixels, train_ids, classes=classes)
    return png(np.concatenate([mixed, label_pictures.legend(pixels.shape[1], classes)]))
