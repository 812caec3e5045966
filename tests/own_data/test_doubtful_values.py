"""`prepare_data.py own` on labels and flags that mean less than they seem."""

import numpy as np
import pytest
from PIL import Image

from dasac_jax.own_data import outputs
from dasac_jax.runtime import lock

FLAGS = "--source-images {}/s/images --source-labels {}/s/labels --target-images {}/t/images"
COLOURS = np.array([(128, 64, 128), (70, 130, 180), (220, 160, 0)], np.uint8)


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    monkeypatch.setattr(outputs, "duration", lambda *_: "1 min")


def disc(inside, outside):
    """A label image of 40×64 pixels with a disc on it."""
    rows, columns = np.mgrid[:40, :64]
    within = (rows - 20) ** 2 + (columns - 30) ** 2 < 256
    return Image.fromarray(np.where(within[..., None], inside, outside).astype(np.uint8).squeeze())


def resized(label):
    return label.resize((50, 32), Image.Resampling.BILINEAR).resize(
        (64, 40), Image.Resampling.BILINEAR
    )


def make(root, label):
    """Pairs with one label image for all, and target images. Returns the folder."""
    for folder in ("s/images", "s/labels", "t/images"):
        (root / folder).mkdir(parents=True)
    for i in range(8):
        label.save(root / f"s/labels/{i}.png")
        for folder in ("s", "t"):
            Image.new("RGB", (64, 40), (30 * i, 9, 9)).save(root / f"{folder}/images/{i}.png")
    return root


def rows(printed):
    return [" ".join(line.split()) for line in printed.splitlines()]


def refused(prepared, words):
    code, printed = prepared
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 2 and words in error, printed


@pytest.mark.parametrize("kind", ["number", "colour"])
def test_blurred_edges_are_warned_of(kind, tmp_path, prepare):
    label = disc(255, 0) if kind == "number" else disc(COLOURS[0], COLOURS[1])
    code, printed = prepare(FLAGS, "--dry-run")
    assert code == 2  # nothing is there yet
    make(tmp_path, resized(label))
    code, printed = prepare(FLAGS, "--dry-run")
    assert code == 0 and "warning: " in printed
    assert "as the edges in label images that were resized with interpolation" in printed
    if kind == "number":  # it is the object, and not what is to be ignored
        assert any(row.startswith("255 ") and row.endswith("class 255") for row in rows(printed))


@pytest.mark.parametrize(
    "label",
    [
        disc(255, 0),
        disc(COLOURS[0], COLOURS[1]),
        Image.fromarray(
            np.repeat([7, 8, 11, 19, 23, 33, 255], 366)[:2560].reshape(40, 64).astype("u1")
        ),
        Image.fromarray(COLOURS[np.repeat([0, 1, 2, 2], 640).reshape(40, 64)]),
    ],
    ids=["mask", "two colours", "ids", "three colours"],
)
def test_clean_labels_are_not_warned_of(label, tmp_path, prepare):
    make(tmp_path, label)
    code, printed = prepare(FLAGS, "--dry-run")
    assert code == 0 and "warning" not in printed


def test_rare_ids_between_frequent_ones_are_not_warned_of(tmp_path, prepare):
    ids = np.repeat([0, 33], 1280).reshape(40, 64).astype(np.uint8)
    ids[0, :20] = np.arange(5, 25)
    make(tmp_path, Image.fromarray(ids))
    code, printed = prepare(FLAGS, "--dry-run")
    assert code == 0 and "warning" not in printed


@pytest.mark.parametrize(
    ("ignored", "words"),
    [
        ("#zz", "--ignore #zz: a colour has six digits"),
        ("-1", "--ignore -1: label values are whole numbers from 0"),
        ("1.5", "--ignore 1.5: label values are whole numbers from 0"),
        ("clas 7", "--ignore clas 7: no class has this name; the closest is class 7"),
    ],
)
def test_what_cannot_be_ignored_is_refused(ignored, words, tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    refused(prepare(FLAGS, f"--ignore={ignored}"), words)
    assert not (tmp_path / "mine").exists()


def test_ignored_values_that_no_label_holds_are_told(tmp_path, prepare):
    make(tmp_path, Image.fromarray(np.repeat([3, 5, 7, 9], 640).reshape(40, 64).astype(np.uint8)))
    code, printed = prepare(FLAGS, "--dry-run", "--ignore", "5", "6")
    assert code == 0 and "--ignore 6: no label holds it" in printed
    assert "--ignore 5: no label" not in printed


def test_a_table_of_the_target_needs_its_labels(tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    refused(prepare(FLAGS, "--target-classes", "cityscapes"), "--target-classes is for --target-l")


@pytest.mark.parametrize("place", ["", "/deeper/still"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_output_in_a_file_is_refused(place, more, tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    (tmp_path / "file").write_text("mine")
    output = f"{tmp_path}/file{place}"
    refused(prepare(FLAGS, "--output", output, *more), f"{tmp_path}/file is no folder")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mistake_leaves_the_folder_as_it_was(tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    (tmp_path / "s/labels/3.png").write_bytes(b"")
    assert prepare(FLAGS)[0] == 2 and not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    assert prepare(FLAGS)[0] == 2 and list((tmp_path / "mine").iterdir()) == []


def test_two_commands_do_not_write_to_one_folder(tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    with lock.held(tmp_path / "mine", flag="--output"):
        refused(prepare(FLAGS), "mine is in use by process")
    assert prepare(FLAGS)[0] == 0


def test_a_picture_is_called_written_when_it_is(tmp_path, prepare):
    make(tmp_path, disc(7, 3))
    cut = (tmp_path / "t/images/2.png").read_bytes()[:60]
    for i in range(8):
        (tmp_path / f"t/images/{i}.png").write_bytes(cut)
    code, printed = prepare(FLAGS)
    assert code == 2 and "cannot read image" in printed
    assert "mine.py" in printed and "look.png" not in printed
