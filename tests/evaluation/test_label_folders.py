"""Which files of two folders belong together, what they may hold, and what is counted."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.labels import label_ids
from dasac_jax.errors import UserError
from dasac_jax.evaluation import label_folders
from dasac_jax.evaluation.label_folders import confusion, match
from dasac_jax.evaluation.label_kinds import Kinds, counts
from dasac_jax.evaluation.metrics import values_together

RNG = np.random.default_rng(0)


def write(path: Path, pixels, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def folders(tmp_path: Path, predictions: list[str], truths: list[str]) -> tuple[Path, Path]:
    """Two folders of tiny label maps with these names."""
    for name in predictions:
        write(tmp_path / "p" / name, [[0]])
    for name in truths:
        write(tmp_path / "t" / name, [[0]])
    return tmp_path / "p", tmp_path / "t"


def paired(tmp_path: Path, predictions: list[str], truths: list[str], **options):
    """The pairs of such folders, as names."""
    p, t = folders(tmp_path, predictions, truths)
    pairs = match(p, t, **options)
    return [tuple(str(x.relative_to(f)) for x, f in zip(q, (p, t), strict=True)) for q in pairs]


A, B = "aachen_000000_000019", "bonn_000001_000019"


def test_cityscapes_names_are_matched_by_city_sequence_and_frame(tmp_path):
    predictions = [f"{B}_leftImg8bit.png", f"deep/down/{A}.png"]
    truths = [f"aachen/{A}_gtFine_labelIds.png", f"bonn/{B}_gtFine_labelIds.png"]
    assert paired(tmp_path, predictions, truths) == [
        (predictions[1], truths[0]),
        (predictions[0], truths[1]),
    ]


@pytest.mark.parametrize(
    ("ids", "shipped", "ending"),
    [
        ("cityscapes", ("labelIds", "instanceIds", "color", "labelTrainIds"), "labelIds"),
        ("train", ("labelIds", "instanceIds", "color", "labelTrainIds"), "labelTrainIds"),
        ("train", ("labelIds", "color"), "labelIds"),
    ],
)
def test_of_what_cityscapes_ships_the_ids_are_the_truth(tmp_path, ids, shipped, ending):
    truths = [f"{A}_gtFine_{kind}.png" for kind in shipped]
    pairs = paired(tmp_path, [f"{A}.png"], truths, truth_ids=ids)
    assert pairs == [(f"{A}.png", f"{A}_gtFine_{ending}.png")]


def test_other_names_are_matched_whole_wherever_they_lie(tmp_path):
    assert paired(tmp_path, ["x/00001.png", "00002.png"], ["00001.png", "y/00002.png"]) == [
        ("x/00001.png", "00001.png"),
        ("00002.png", "y/00002.png"),
    ]


def test_names_that_repeat_are_matched_by_their_folders(tmp_path):
    names = ["a/1.png", "b/1.png"]
    assert paired(tmp_path, names[::-1], names) == [(name, name) for name in names]


def test_linked_folders_and_suffixes_in_capitals_are_scored(tmp_path, caplog):
    folders(tmp_path, [], [])
    for side in ("p", "t"):
        write(tmp_path / "store" / side / "b.png", [[0]])
        write(tmp_path / side / "a.PNG", [[0]])
        write(tmp_path / side / "c.bmp", [[0]])
        (tmp_path / side / "linked").symlink_to(tmp_path / "store" / side)
    found = match(tmp_path / "p", tmp_path / "t")
    assert [pair.truth.name for pair in found] == ["a.PNG", "b.png"]
    assert caplog.text.count("1 picture is left out, no PNG (1 .bmp)") == 2
    (tmp_path / "p" / "mounted").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"p/mounted is a link to nowhere"):
        match(tmp_path / "p", tmp_path / "t")


def test_unfinished_files_do_not_count(tmp_path):
    assert paired(tmp_path, ["1.png", ".2.png"], ["1.png", ".3.png"]) == [("1.png", "1.png")]


@pytest.mark.parametrize(
    ("predictions", "truths", "words"),
    [
        ([f"{A}.png"], [f"{A}_x.png", f"{B}_x.png"], ["1 of 2", "no prediction", f"{B}_x.png"]),
        ([f"{A}.png", f"{B}.png"], [f"{A}_x.png"], ["1 of 2", "no truth", f"{B}.png"]),
        ([f"{A}.png", f"{A}_y.png"], [f"{A}_x.png"], ["two predictions", f"{A}.png", f"{A}_y.png"]),
        (["1.png"], [f"{A}.png", f"b/{A}_x.png"], ["two truths", f"{A}.png"]),
    ],
)
def test_files_without_a_partner_are_named(tmp_path, predictions, truths, words):
    with pytest.raises(UserError) as caught:
        paired(tmp_path, predictions, truths)
    for word in words:
        assert word in str(caught.value)


def test_missing_and_empty_folders_are_named(tmp_path):
    p, t = folders(tmp_path, ["1.png"], ["1.png"])
    with pytest.raises(UserError, match=r"folder .*nowhere is missing"):
        match(p, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"folder .*empty holds no PNG"):
        match(tmp_path / "empty", t)


@pytest.fixture
def maps(tmp_path):
    """Twelve pairs of 19 classes in train ids, and their counts."""
    total = 0
    for index in range(12):
        truth = RNG.integers(0, 20, (9, 13)).astype(np.uint8)
        truth[truth == 19] = 255
        guess = np.where(RNG.random(truth.shape) < 0.3, 255 * (truth % 2), truth).astype(np.uint8)
        total = total + counts(values_together(truth, guess), Kinds("train", "train"), 19)
        write(tmp_path / "p" / f"{index:02}.png", guess)
        write(tmp_path / "t" / f"{index:02}.png", truth)
    return match(tmp_path / "p", tmp_path / "t"), total


@pytest.mark.parametrize("threads", [1, 4, None])
def test_counts_are_the_sum_over_the_pairs(maps, threads):
    pairs, total = maps
    told = []
    found = confusion(pairs, 19, threads=threads, update=told.append)
    np.testing.assert_array_equal(found, total)
    assert found.dtype == np.int64 and found[:, -1].any() and told == list(range(1, 13))


def test_cityscapes_ids_give_the_same_counts(maps):
    pairs, total = maps
    for pair in pairs:
        for path in pair:
            write(path, label_ids(np.asarray(Image.open(path))))
    found = confusion(pairs, 19, ids="cityscapes", truth_ids="cityscapes")
    np.testing.assert_array_equal(found, total)


def test_predictions_and_truth_may_hold_different_ids(maps):
    pairs, total = maps
    for pair in pairs:
        write(pair.truth, label_ids(np.asarray(Image.open(pair.truth))))
    np.testing.assert_array_equal(confusion(pairs, 19, truth_ids="cityscapes"), total)


def test_palette_predictions_are_read_by_index(maps):
    pairs, total = maps
    for pair in pairs:
        image = Image.open(pair.prediction).convert("L")
        indexed = Image.fromarray(np.asarray(image))
        indexed.putpalette([(7 * i) % 256 for i in range(768)])
        assert indexed.mode == "P"
        indexed.save(pair.prediction)
    np.testing.assert_array_equal(confusion(pairs, 19), total)


def test_sums_exceed_32_bits(maps, monkeypatch):
    """As 500 images of 2 megapixels and more do, without making them."""
    together = np.full((256, 256), 2**31 - 1, np.int64)
    monkeypatch.setattr(label_folders, "values_together", lambda *_: together)
    assert (confusion(maps[0], 19)[:, :19] == 12 * (2**31 - 1)).all()


def test_few_images_are_in_memory_at_a_time(tmp_path, monkeypatch):
    for index in range(40):
        write(tmp_path / "p" / f"{index}.png", np.zeros((8, 8)))
    pairs = match(tmp_path / "p", tmp_path / "p")
    alive, most = set(), [0]
    read = label_folders.read_ids

    def counted(*arguments):
        array = read(*arguments)
        token = object()
        alive.add(token)
        weakref.finalize(array, alive.discard, token)
        most[0] = max(most[0], len(alive))
        return array

    monkeypatch.setattr(label_folders, "read_ids", counted)
    confusion(pairs, 19, threads=2)
    assert 1 < most[0] <= 2 * 2 + 2  # a pair in each thread, and one that it still holds


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGB", ["pixel format RGB"]),
        ("RGBA", ["pixel format RGBA"]),
        ("LA", ["pixel format LA"]),
        ("I;16", ["holds the value 300"]),
    ],
)
@pytest.mark.parametrize("which", ["prediction", "truth"])
def test_other_pixel_formats_are_refused(maps, mode, words, which):
    path = getattr(maps[0][3], which)
    if mode == "I;16":
        Image.fromarray(np.full((9, 13), 300, np.uint16)).save(path)
    else:
        write(path, np.zeros((9, 13)), mode)
    with pytest.raises(UserError) as caught:
        confusion(maps[0], 19)
    for word in [*words, str(path)]:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_unreadable_images_are_named(maps, content):
    path = maps[0][5].prediction
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(UserError, match=f"cannot read label file {path}"):
        confusion(maps[0], 19)


def test_of_several_bad_files_the_first_is_named(maps):
    for pair in maps[0][4:]:
        pair.prediction.write_bytes(b"")
    for _ in range(3):
        with pytest.raises(UserError, match=str(maps[0][4].prediction)):
            confusion(maps[0], 19, threads=4)


def test_different_sizes_are_named(maps):
    pair = maps[0][2]
    write(pair.prediction, np.zeros((13, 9)))
    with pytest.raises(UserError) as caught:
        confusion(maps[0], 19)
    for word in (f"{pair.prediction} has 9×13", f"{pair.truth} has 13×9"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("which", "value", "options", "words"),
    [
        ("prediction", 19, {}, ["19", "0..18 or 255", "--ids cityscapes"]),
        ("truth", 33, {}, ["33", "0..18 or 255", "--truth-ids cityscapes"]),
        ("truth", 254, {}, ["254"]),
        ("prediction", 255, {"ids": "cityscapes"}, ["255", "0..33", "--ids train"]),
        ("truth", 34, {"truth_ids": "cityscapes"}, ["34", "0..33", "--truth-ids train"]),
    ],
)
def test_values_that_are_no_ids_are_named_with_the_file(tmp_path, which, value, options, words):
    for kind in ("prediction", "truth"):
        write(tmp_path / kind / "1.png", [[7, value if kind == which else 7]])
    pairs = match(tmp_path / "prediction", tmp_path / "truth")
    with pytest.raises(UserError) as caught:
        confusion(pairs, 19, **options)
    for word in [*words, str(tmp_path / which / "1.png")]:
        assert word in str(caught.value)


def test_fewer_classes_have_fewer_ids(tmp_path):
    write(tmp_path / "p/1.png", [[0, 2]])
    write(tmp_path / "t/1.png", [[0, 1]])
    pairs = match(tmp_path / "p", tmp_path / "t")
    assert confusion(pairs, 3).sum() == 2
    with pytest.raises(UserError, match=r"holds 2, which is no train id of 2 classes \(0..1"):
        confusion(pairs, 2)
