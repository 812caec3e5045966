"""The files that predicting a set of images writes, and the images that are still to be done."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from dasac_jax.data import labels
from dasac_jax.data.decoding import read_ids, read_rgb
from dasac_jax.errors import UserError
from dasac_jax.files import (
    PREDICTED_CITYSCAPES_IDS,
    PREDICTED_LABELS,
    PREDICTION_RECORD,
    PREDICTIONS,
    png,
    replacing,
    write_file,
)
from dasac_jax.inference.image_files import ImageFile
from dasac_jax.inference.origins import Compared, Origins
from dasac_jax.inference.predictor import AsyncPredict, Prediction, check_finite
from dasac_jax.inference.streaming import stream
from dasac_jax.reporting import label_pictures

ZIP_FILE = "cityscapes_ids.zip"

_SUFFIX = {"probabilities": ".npz"}
_CITYSCAPES = re.compile(r"^([^_]+_\d{6}_\d{6})(_|$)")  # city, sequence, frame
_SAME = 0.99  # share of equal pixels in two predictions of one image on different devices
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that equal predictions give equal archives


def output_path(folder: Path, image: ImageFile, kind: str) -> Path:
    """The path of an image's file of a kind: the image's name below the kind's folder.

    Files for the evaluation server are called <city>_<sequence>_<frame>_labelIds.png where the
    image's own name begins like that.
    """
    name = PurePosixPath(image.name)
    if kind == PREDICTED_CITYSCAPES_IDS and (match := _CITYSCAPES.match(name.name)):
        name = name.with_name(f"{match[1]}_labelIds")
    return folder / kind / name.parent / (name.name + _SUFFIX.get(kind, ".png"))


def check_server_names(
    images: Sequence[ImageFile], kinds: Collection[str], class_names: Sequence[str], *, zipped: bool
) -> None:
    """Raise UserError where files for the evaluation server cannot be made of these images.

    kinds: those that are wanted; without cityscapes_ids all is well. zipped: whether they go into
    one archive, where all names must follow the server's pattern and differ.
    """
    if PREDICTED_CITYSCAPES_IDS not in kinds:
        return
    if tuple(class_names) != labels.CLASS_NAMES:
        raise UserError(
            f"the checkpoint has {len(class_names)} classes of its own ({class_names[0]}, …): "
            f"Cityscapes ids stand for Cityscapes' {labels.NUM_CLASSES} classes"
        )
    taken: dict[str, ImageFile] = {}
    for image in images:
        path = output_path(Path(), image, PREDICTED_CITYSCAPES_IDS)
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
    """Write to PREDICTION_RECORD what decides a folder's predictions; JSON values by name.

    Raises UserError where the folder holds predictions of another network or other options, so
    that no folder mixes two, and where it cannot be written.
    """
    record = json.loads(json.dumps(record))
    path = folder / PREDICTION_RECORD
    try:
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key in record if stored.get(key) != record[key]]
            if differing:
                key = differing[0]
                raise UserError(
                    f"--output {folder} holds other predictions ({key}: {stored.get(key)} there, "
                    f"{record[key]} here): choose another folder, or remove the predictions there"
                )
        write_file(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read or written: {error}") from error


class Work(NamedTuple):
    """What is to be done in a folder of predictions.

    remaining: the images to predict, those first whose files are to be compared with. origins: the
    folder's record of its images; compared: what it says of these.
    """

    remaining: list[ImageFile]
    origins: Origins
    compared: Compared


def open_work(folder: Path, images: Sequence[ImageFile], kinds: Collection[str]) -> Work:
    """The images that lack a file of some kind, or whose files were not made of them as they are.

    A file that exists is always complete. Raises UserError where files of an image's name were made
    of another image, or may be but hold no labels to compare with.
    """
    there = [{k for k in PREDICTIONS if output_path(folder, i, k).exists()} for i in images]
    origins = Origins(folder)
    compared = origins.compare(images, [bool(found) for found in there])
    remaining, first = [], []
    for image, found in zip(images, there, strict=True):
        if image.name in compared.unrecorded:
            first.append(image)
            if PREDICTED_LABELS not in found:
                path = output_path(folder, image, min(found))
                raise UserError(
                    f"{path} is there, and nothing says which image it was made of: choose another "
                    "--output, or remove it"
                )
        elif image.name in compared.changed or not found.issuperset(kinds):
            remaining.append(image)
    return Work(first + remaining, origins, compared)


def predict_files(
    predict: AsyncPredict,
    work: Work,
    folder: Path,
    kinds: Collection[str],
    classes: Sequence[labels.Class],
    *,
    batch: int,
) -> Iterator[int]:
    """Predict images and write the files that do not exist; reading, computing and writing overlap.

    predict: as `predictor.create` makes it. classes: the network's, with names and colours.
    batch: the number of images that `predict` takes at a time. All files of a changed image are
    replaced; those of an image without record are kept if their labels are what is predicted.
    Yields the number of images done so far after each batch. Raises UserError for an image that
    cannot be read, for results that are not finite, a file that cannot be written, and labels
    without record that are another image's; every file is complete or absent.
    """

    def read(image: ImageFile) -> np.ndarray:
        work.origins.note(image)
        return read_rgb(image.path)

    def write(image: ImageFile, pixels: np.ndarray, found: Prediction, index: int) -> None:
        check_finite(found.confidence[index], f"image {image.path}")
        if image.name in work.compared.changed:
            for kind in PREDICTIONS:
                output_path(folder, image, kind).unlink(missing_ok=True)
        if image.name in work.compared.unrecorded:
            _check_same(output_path(folder, image, PREDICTED_LABELS), image, found.labels[index])
        work.origins.record(image)
        for kind in kinds:
            path = output_path(folder, image, kind)
            if not path.exists():
                write_file(path, _content(kind, pixels, found, index, classes))

    return stream(work.remaining, read=read, predict=predict, write=write, batch=batch)


def _check_same(path: Path, image: ImageFile, predicted: np.ndarray) -> None:
    """Raise UserError unless a label map is what is predicted for an image now.

    A few pixels may differ, as they do between devices.
    """
    there = read_ids(path)
    if there.shape != predicted.shape or (there == predicted).mean() < _SAME:
        raise UserError(
            f"{path} is there, and is not what is predicted for {image.path}; nothing says which "
            "image it was made of: choose another --output, or remove it"
        )


def write_zip(folder: Path, images: Sequence[ImageFile]) -> Path:
    """Pack all images' files for the evaluation server in one archive, without folders.

    Returns its path. Raises UserError where it cannot be written.
    """
    path = folder / ZIP_FILE
    parts = sorted(output_path(folder, image, PREDICTED_CITYSCAPES_IDS) for image in images)
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
    if kind == PREDICTED_LABELS:
        return png(train_ids)
    if kind == PREDICTED_CITYSCAPES_IDS:
        return png(labels.label_ids(train_ids))
    if kind == "confidence":
        return png(np.round(found.confidence[index] * 255))
    mixed = label_pictures.overlay(pixels, train_ids, classes=classes)
    return png(np.concatenate([mixed, label_pictures.legend(pixels.shape[1], classes)]))
