import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.data import sampling
from dasac_jax.data.labels import CLASSES
from dasac_jax.data.preparation.count_predictions import main

NAMES = tuple(entry.name for entry in CLASSES)
IMAGES = tuple(
    f"cityscapes/leftImg8bit/train/{city}/{city}_000000_000019_leftImg8bit.png"
    for city in ("ulm", "aachen")
)


def save(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two label maps as `predict` writes them."""
    save(tmp_path / "p/labels/ulm/ulm_000000_000019_leftImg8bit.png", [[0, 0, 0], [2, 255, 18]])
    save(tmp_path / "p/labels/aachen/aachen_000000_000019_leftImg8bit.png", [[0, 2, 2], [2, 3, 3]])
    return tmp_path / "p"


@pytest.fixture
def run(tmp_path):
    def count(folder, name="run/weights.tsv"):
        text = io.StringIO()
        code = main([str(folder), str(tmp_path / name)], console=Console(file=text, width=300))
        return code, text.getvalue()

    return count


@pytest.mark.parametrize("inner", ["", "labels"])
def test_pixels_of_predictions_on_disk_become_weights(run, folder, tmp_path, inner):
    code, text = run(folder / inner)
    assert code == 0 and text.startswith("importance weights of 2 images: ")
    found = sampling.load_weights(tmp_path / "run/weights.tsv", IMAGES, NAMES)
    np.testing.assert_array_equal(found[:, [0, 2, 3, 18]], [[0.75, 0.25, 0, 1], [0.25, 0.75, 1, 0]])
    assert found.sum() == 4


def test_they_are_those_of_counted_pixels(run, folder, tmp_path):
    run(folder)
    counts = np.zeros((2, 19), np.int64)
    counts[0, [0, 2, 18]] = 3, 1, 1
    counts[1, [0, 2, 3]] = 1, 3, 2
    sampling.save_weights(tmp_path / "stage.tsv", IMAGES, counts, NAMES)
    np.testing.assert_array_equal(
        sampling.load_weights(tmp_path / "run/weights.tsv", IMAGES, NAMES),
        sampling.load_weights(tmp_path / "stage.tsv", IMAGES, NAMES),
    )


def test_classes_of_one_s_own_are_those_of_the_predictions(run, tmp_path, capsys):
    save(tmp_path / "q/labels/scene1.png", [[0, 1]])
    (tmp_path / "q/prediction.json").write_text(json.dumps({"classes": ["yes", "no"]}))
    assert run(tmp_path / "q")[0] == 0
    found = sampling.load_weights(tmp_path / "run/weights.tsv", ("a/scene1.jpg",), ("yes", "no"))
    assert found.tolist() == [[1, 1]]
    save(tmp_path / "q/labels/scene1.png", [[0, 2]])
    assert run(tmp_path / "q", "other.tsv")[0] == 2
    assert "scene1.png holds 2, which is no train id of 2 classes" in capsys.readouterr().err
    (tmp_path / "q/prediction.json").write_text("{}")
    assert run(tmp_path / "q", "other.tsv")[0] == 2
    assert "cannot read the classes in" in capsys.readouterr().err


def test_mistakes_end_with_one_line_and_write_nothing(run, folder, tmp_path, capsys):
    def error(*arguments):
        assert run(*arguments)[0] == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "none is missing" in error(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no PNG images" in error(tmp_path / "empty")
    path = folder / "labels/ulm/ulm_000000_000019_leftImg8bit.png"
    path.write_bytes(path.read_bytes()[:40])
    assert "cannot read label file" in error(folder)
    assert not (tmp_path / "run").exists()
    (tmp_path / "weights.tsv").write_text("mine")
    assert "is there already" in error(folder, "weights.tsv")


def test_linked_folders_count_and_other_pictures_are_named_once(run, folder, tmp_path, capsys):
    save(tmp_path / "store/0.PNG", [[1]])
    save(folder / "labels/ulm/1.bmp", [[1]])
    (folder / "labels/linked").symlink_to(tmp_path / "store")
    code, text = run(folder)
    assert code == 0 and text.startswith("importance weights of 3 images: ")
    assert capsys.readouterr().err.count("1 picture is left out, no PNG (1 .bmp)") == 1


def test_predictions_of_no_class_are_no_weights(run, tmp_path, capsys):
    for number in (1, 2):
        save(tmp_path / f"none/{number}.png", [[255, 255]])
    assert run(tmp_path / "none")[0] == 2
    assert "none of the 2 label files" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
