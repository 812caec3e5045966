import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.data.preparation import check
from dasac_jax.data.preparation.check_report import report
from dasac_jax.errors import UserError


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def pair(root, name, ids, shape=None, images="game/images"):
    ids = np.asarray(ids)
    png(root / images / f"{name}.png", np.zeros((*(shape or ids.shape), 3)))
    png((root / images).with_name("labels_cs") / f"{name}.png", ids)


def frame(root, split, city, number, ids=None):
    name = f"{city}/{city}_{number:06d}_000019"
    png(root / f"cityscapes/leftImg8bit/{split}/{name}_leftImg8bit.png", np.zeros((4, 8, 3)))
    if ids is not None:
        png(root / f"cityscapes/gtFine2/{split}/{name}_gtFine_labelIds.png", ids)


ROAD = np.zeros((4, 8))


@pytest.fixture
def root(tmp_path):
    """All sets, nothing wrong but their small number."""
    frame(tmp_path, "train", "ulm", 0, ROAD)
    frame(tmp_path, "train", "ulm", 1, ROAD + 255)
    frame(tmp_path, "val", "bonn", 0, ROAD + 18)
    frame(tmp_path, "test", "mainz", 0)
    pair(tmp_path, "00001", [[0, 0, 2, 255]])
    pair(tmp_path, "00003", [[0, 2, 2, 255]])
    pair(tmp_path, "0000000", ROAD + 10, images="synthia/RGB")
    return tmp_path


def survey(root, name):
    (part,) = [part for part in check.find_parts(root) if part.name == name]
    return check.survey(part, jobs=2)


def shown(surveys):
    file = io.StringIO()
    right = report(surveys, Console(file=file, width=160))
    return right, file.getvalue()


def row(text, title):
    """The cells of a row of the table, those of several words together."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{title}  ")]
    return line.strip().removeprefix(title).split()


def test_labels_that_were_converted_twice_are_a_fault(root):
    """Nearly all is ignored then, though every value is a train id."""
    for number in ("00001", "00003"):
        pair(root, number, [[255] * 9 + [1]])
    right, text = shown([survey(root, "gta5")])
    assert not right and row(text, "mostly ignored labels") == ["1"]
    assert "90.0 % of the pixels" in text and "make them again" in text
    assert shown([survey(root, "synthia")])[0]


def test_counts_sizes_and_histogram(root):
    found = survey(root, "gta5")
    assert (found.images, found.labels) == (2, 2)
    assert found.image_sizes == found.label_sizes == {(1, 4): 2}
    assert {v: n for v, n in enumerate(found.counts) if n} == {0: 3, 2: 3, 255: 2}
    assert found.faults == {}
    assert found.notes == ["24964 of 24966 numbers are missing: 00002, 00004 to 24966"]


def test_splits_of_cityscapes_are_checked_apart_and_test_needs_no_labels(root):
    names = [part.name for part in check.find_parts(root)]
    assert names[:3] == ["cityscapes train", "cityscapes val", "cityscapes test"]
    for name, images, labelled in (("train", 2, 2), ("val", 1, 1), ("test", 1, 0)):
        found = survey(root, f"cityscapes {name}")
        assert (found.images, found.labels, found.faults) == (images, labelled, {})
    assert survey(root, "cityscapes train").notes == ["2 of 2975 published images"]


def test_progress_counts_names(root):
    seen = []
    check.survey(check.find_parts(root)[0], update=seen.append)
    assert seen == [1, 2]


def test_one_table_shows_everything(root):
    right, text = shown([check.survey(part) for part in check.find_parts(root)])
    assert right and text.rstrip().endswith("no faults")
    assert row(text, "images") == ["2", "1", "1", "2", "1"]
    assert row(text, "labels") == ["2", "1", "0", "2", "1"]
    assert row(text, "image sizes") == ["8×4", "8×4", "8×4", "4×1", "8×4"]
    assert row(text, "road") == ["50.00", "0.00", "-", "37.50", "0.00"]
    assert row(text, "bicycle") == ["0.00", "100.00", "-", "0.00", "0.00"]
    assert row(text, "ignored") == ["50.00", "0.00", "-", "25.00", "0.00"]
    assert row(text, "other values") == ["0.00", "0.00", "-", "0.00", "0.00"]
    assert "note: synthia: 9399 of 9400 numbers are missing: 0000001 to 0009399" in text


def test_several_sizes_are_counted(root):
    for number in range(10, 13):
        pair(root, f"{number:05d}", np.zeros((2, 6)))
    right, text = shown([survey(root, "gta5")])
    assert right
    assert row(text, "image sizes") == ["3", "of", "6×2"]
    assert "2 of 4×1" in text


def faults(root, name, kind):
    found = survey(root, name)
    assert list(found.faults) == [kind]
    right, text = shown([found])
    assert not right
    assert row(text, kind) == [str(len(found.faults[kind]))]
    assert f"{name}: {len(found.faults[kind])} {kind}: " in text
    return found.faults[kind]


@pytest.mark.parametrize(
    ("gone", "kind"), [("labels_cs", check.NO_LABEL), ("images", check.NO_IMAGE)]
)
def test_pairs_missing_on_either_side(root, gone, kind):
    (root / f"game/{gone}/00003.png").unlink()
    assert faults(root, "gta5", kind) == ["00003"]


def test_cityscapes_pairs_missing_on_either_side(root):
    (root / "cityscapes/gtFine2/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    assert faults(root, "cityscapes train", check.NO_LABEL) == ["ulm/ulm_000001_000019"]
    (root / "cityscapes/leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png").unlink()
    frame(root, "val", "bonn", 1, ROAD)
    assert faults(root, "cityscapes val", check.NO_IMAGE) == ["bonn/bonn_000000_000019"]


def test_training_needs_no_target_labels_but_scoring_does(root):
    for split in ("train", "val"):
        for path in (root / "cityscapes/gtFine2" / split).glob("*/*"):
            path.unlink()
    found = survey(root, "cityscapes train")
    assert found.faults == {}
    assert "no labels in" in found.notes[-1] and "data.selection_images" in found.notes[-1]
    (told,) = faults(root, "cityscapes val", check.NOTHING)
    assert "gtFine2/val" in told and "prepare_data.py" in told


def test_sets_that_were_not_prepared(root):
    (root / "game/labels_cs").rename(root / "game/labels")
    (told,) = faults(root, "gta5", check.NOTHING)
    assert "no labels in" in told and "game/labels_cs" in told
    (root / "synthia/RGB").rename(root / "synthia/elsewhere")
    (told,) = faults(root, "synthia", check.NOTHING)
    assert "no images in" in told and "synthia/RGB" in told


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 20])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    path.write_bytes(content)


def pack_other_data(path):
    """Right checksums, but the stream inside is none."""
    content = path.read_bytes()
    start = content.index(b"IDAT")
    (size,) = struct.unpack(">I", content[start - 4 : start])
    body = b"IDAT" + bytes(size)
    after = content[start + 4 + size + 4 :]
    path.write_bytes(content[:start] + body + struct.pack(">I", zlib.crc32(body)) + after)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to("/nowhere/image.png")


@pytest.mark.parametrize("spoil", [cut_off, flip_a_byte, pack_other_data, link_to_nothing])
@pytest.mark.parametrize("kind", ["images", "labels_cs"])
def test_unreadable_files_are_named(root, kind, spoil):
    pair(root, "00002", np.random.default_rng(0).integers(0, 19, (9, 9)))
    spoil(root / f"game/{kind}/00002.png")
    (told,) = faults(root, "gta5", check.UNREADABLE)
    assert f"game/{kind}/00002.png" in told
    if (spoil, kind) == (link_to_nothing, "images"):
        assert "/nowhere/image.png" in told


def test_files_of_another_pixel_format_are_named(root):
    Image.new("RGB", (4, 1)).save(root / "game/labels_cs/00001.png")
    Image.fromarray(np.zeros((1, 4), np.float32)).save(root / "game/images/00003.png", "TIFF")
    told = faults(root, "gta5", check.UNREADABLE)
    assert len(told) == 2
    assert "00001.png has pixel format RGB" in told[0]
    assert "00003.png has pixel format F" in told[1]


def test_values_that_are_no_train_ids(root):
    pair(root, "00007", [[7, 18, 19, 254, 254]])
    (told,) = faults(root, "gta5", check.FOREIGN)
    assert told.endswith("game/labels_cs/00007.png: 19, 254")
    _, text = shown([survey(root, "gta5")])
    assert row(text, "other values") == ["23.08"]


def test_sizes_that_differ_are_a_note_for_gta5_and_a_fault_elsewhere(root):
    pair(root, "00007", np.zeros((40, 60)), shape=(39, 60))
    pair(root, "00008", np.zeros((4, 6)), shape=(6, 4))
    found = survey(root, "gta5")
    assert found.faults == {check.SIZES: ["00008 (image 4×6, label 6×4)"]}
    assert found.notes[-1].startswith("1 pairs of different size")
    assert found.notes[-1].endswith("00007 (image 60×39, label 60×40)")
    pair(root, "0000007", np.zeros((4, 6)), shape=(3, 6), images="synthia/RGB")
    assert faults(root, "synthia", check.SIZES) == ["0000007 (image 6×3, label 6×4)"]


def test_unfinished_files_are_noted_and_hidden_ones_left_out(root):
    (root / "game/labels_cs/.00009.png.part").write_bytes(b"")
    (root / "game/labels_cs/._00001.png").write_bytes(b"")
    found = survey(root, "gta5")
    assert (found.labels, found.faults) == (2, {})
    assert found.notes[0].startswith("1 unfinished files")


def test_long_lists_are_shortened(root):
    for number in range(100, 115):
        png(root / f"game/images/{number:05d}.png", np.zeros((1, 4, 3)))
    _, text = shown([survey(root, "gta5")])
    assert "gta5: 15 images without label: 00100, 00101" in text
    assert "00109 and 5 more" in text and "00110" not in text


def test_a_folder_without_data(tmp_path):
    with pytest.raises(UserError, match=r"holds none of cityscapes, game and synthia"):
        check.find_parts(tmp_path)
