"""What is there is kept only for the image that it was made of."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.inference.image_files import find_images
from dasac_jax.inference.origins import IMAGES_FILE
from dasac_jax.inference.prediction_files import open_work, predict_files
from dasac_jax.inference.predictor import Prediction


def picture(path, seed, size=(8, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 190, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def network(images):
    """Predicts a tenth of red."""
    labels = images[..., 0] // 10
    return lambda: Prediction(labels, np.ones(labels.shape, np.float32), None)


def predict(images, out, kinds=("labels",)):
    """Predicts as the command does; returns the names of changed and of unrecorded images."""
    out.mkdir(exist_ok=True)
    work = open_work(out, find_images([images]), kinds)
    done = list(predict_files(network, work, out, kinds, CLASSES, batch=1))
    return len(done), *map(sorted, work.compared)


def is_of(out, image):
    with Image.open(image) as pixels, Image.open(out / "labels" / image.name) as labels:
        return np.array_equal(np.asarray(pixels)[..., 0] // 10, np.asarray(labels))


@pytest.fixture
def day(tmp_path):
    for i in range(3):
        picture(tmp_path / "day" / f"{i}.png", i)
    return tmp_path / "day"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_images_are_predicted_once(day, out):
    assert predict(day, out) == (3, [], [])
    assert predict(day, out) == (0, [], [])
    assert predict(day, out, ("labels", "confidence")) == (3, [], [])


def test_another_drive_with_the_same_names_is_refused(day, out, tmp_path):
    predict(day, out)
    before = content(out)
    picture(tmp_path / "night" / "9.png", 9)
    picture(tmp_path / "night" / "1.png", 8)
    told = r"out holds the predictions of /.*day/1\.png under the name 1, .*night/1\.png.* --output"
    with pytest.raises(UserError, match=told):
        predict(tmp_path / "night", out)
    assert content(out) == before


def test_an_image_that_was_replaced_is_predicted_anew_in_all_kinds(day, out):
    predict(day, out, ("labels", "confidence"))
    picture(day / "1.png", 7, size=(16, 10))
    picture(day / "2.png", 6)
    assert predict(day, out) == (2, ["1", "2"], [])
    assert all(is_of(out, path) for path in day.iterdir())
    assert [path.name for path in (out / "confidence").iterdir()] == ["0.png"]
    assert predict(day, out) == (0, [], [])


def test_images_that_were_moved_copied_or_touched_are_the_same(day, out, tmp_path):
    predict(day, out)
    os.utime(day / "0.png", (1, 1))
    assert predict(day, out) == (0, [], [])
    shutil.copytree(day, tmp_path / "copy")
    shutil.rmtree(day)
    assert predict(tmp_path / "copy", out) == (0, [], [])
    picture(tmp_path / "copy" / "0.png", 5)  # from now on the copy is the place to compare with
    assert predict(tmp_path / "copy", out) == (1, ["0"], [])


def test_predictions_without_a_record_are_kept_if_they_are_of_these_images(day, out):
    predict(day, out)
    (out / IMAGES_FILE).unlink()  # as earlier versions left it
    (out / "labels" / "2.png").unlink()
    before = (out / "labels" / "0.png").stat().st_mtime_ns
    assert predict(day, out) == (3, [], ["0", "1"])
    assert (out / "labels" / "0.png").stat().st_mtime_ns == before
    assert predict(day, out) == (0, [], [])


@pytest.mark.parametrize("size", [(8, 12), (9, 12)])
def test_predictions_without_a_record_of_other_images_are_refused_and_kept(day, out, size):
    predict(day, out)
    (out / IMAGES_FILE).unlink()
    picture(day / "1.png", 4, size)
    before = (out / "labels" / "1.png").read_bytes()
    with pytest.raises(UserError, match=r"labels/1\.png is there, and is not what is predicted"):
        predict(day, out)
    assert (out / "labels" / "1.png").read_bytes() == before


def test_other_files_without_a_record_and_labels_are_refused(day, out):
    predict(day, out, ("labels", "overlay"))
    (out / IMAGES_FILE).unlink()
    shutil.rmtree(out / "labels")
    with pytest.raises(UserError, match=r"overlay/0\.png is there, and nothing says"):
        predict(day, out)


def test_a_line_that_was_cut_off_is_no_line(day, out):
    predict(day, out)
    path = out / IMAGES_FILE
    path.write_bytes(path.read_bytes()[:-20])
    done, changed, unrecorded = predict(day, out)
    assert (done, changed) == (1, []) and len(unrecorded) == 1
    assert predict(day, out) == (0, [], [])


def test_an_image_that_is_gone_is_named(day, out):
    work = open_work(out, find_images([day]), ["labels"])
    (day / "1.png").unlink()
    out.mkdir()
    with pytest.raises(UserError, match=r"cannot read image .*1\.png: No such file"):
        list(predict_files(network, work, out, ["labels"], CLASSES, batch=1))
