"""The report's files and table hold the scores that follow from the counts."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.data.labels import CLASS_NAMES
from dasac_jax.errors import UserError
from dasac_jax.evaluation import report
from dasac_jax.evaluation.scores import Result, means, scores

NAMES = ("road", "sky", "train")
WEAK = Result("weak", np.array([[6, 2, 0, 2], [2, 6, 0, 0], [0, 0, 0, 0]]), NAMES, 4, {"step": 7})
STRONG = Result("strong", np.array([[8, 1, 1, 0], [0, 8, 0, 0], [0, 0, 0, 0]]), NAMES, 4, {})
MEANS = means(NAMES, (1,))
# Of WEAK: road 6 / 12, sky 6 / 10; of STRONG: road 8 / 10, sky 8 / 9, train 0 / 1.


def write(folder: Path, *results: Result, **changes) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100)
    options = {"means": MEANS, "facts": {"data": "val"}, "console": console} | changes
    report.write(folder, results, **options)
    return out.getvalue()


def cells(text: str) -> list[list[str]]:
    lines = [line.replace("│", "|").replace("┃", "|") for line in text.splitlines()]
    return [[cell.strip(" *") for cell in line.strip("| ").split("|")] for line in lines]


@pytest.mark.parametrize("where", ["terminal", "markdown"])
def test_one_result_has_all_its_scores(tmp_path, where):
    text = write(tmp_path, WEAK)
    if where == "markdown":
        text = (tmp_path / "evaluation.md").read_text()
    rows = cells(text)
    assert ["road", "50.00", "75.00", "60.00"] in rows
    assert ["sky", "60.00", "75.00", "75.00"] in rows
    assert ["train", "nan", "nan", "nan"] in rows
    assert ["mean over 2 of 3 classes", "55.00", "75.00", "67.50"] in rows
    assert ["mean over 1 of 2 classes", "50.00", "75.00", "60.00"] in rows
    assert [cell for cell in rows[[r[0] for r in rows].index("pixel accuracy")] if cell] == [
        "pixel accuracy",
        "66.67",
    ]
    words = " ".join(text.split())
    assert "nan: a class that is neither in the truth nor predicted on any scored pixel" in words
    assert "as in the official Cityscapes evaluation" in words


@pytest.mark.parametrize("where", ["terminal", "markdown"])
def test_several_results_stand_side_by_side_with_differences(tmp_path, where):
    text = write(tmp_path, WEAK, STRONG)
    if where == "markdown":
        text = (tmp_path / "evaluation.md").read_text()
        assert "## precision" in text and "## recall" in text
        assert ["road", "60.00", "80.00", "+20.00"] in cells(text)  # its recall
    rows = cells(text)
    assert ["class", "A", "B", "B − A"] in rows
    assert ["road", "50.00", "80.00", "+30.00"] in rows
    assert ["train", "nan", "0.00", "nan"] in rows
    assert ["mean over 2 / 3 of 3 classes", "55.00", "56.30", "+1.30"] in rows
    assert ["pixel accuracy", "66.67", "88.89", "+22.22"] in rows
    assert "A: weak" in text and "B: strong" in text


def test_json_has_every_number_and_null_for_nan(tmp_path):
    write(tmp_path, WEAK, STRONG)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["classes"] == list(NAMES) and stored["facts"] == {"data": "val"}
    assert stored["means"] == {"mean over 3 classes": [], "mean over 2 classes": ["sky"]}
    weak, strong = stored["results"]["weak"], stored["results"]["strong"]
    assert weak["iou"] == {"road": 0.5, "sky": 0.6, "train": None}
    assert weak["confusion"] == [[6, 2, 0], [2, 6, 0], [0, 0, 0]]
    assert weak["predicted_as_no_class"] == [2, 0, 0]
    assert weak["images"] == 4 and weak["facts"] == {"step": 7}
    assert strong["means"]["mean over 3 classes"]["classes"] == 3
    assert weak["means"]["mean over 3 classes"]["title"] == "mean over 2 of 3 classes"
    assert "title" not in stored["differences"]["strong"]["means"]["mean over 3 classes"]
    assert strong["pixel_accuracy"] == pytest.approx(16 / 18)
    assert stored["differences"]["to"] == "weak" and "weak" not in stored["differences"]
    change = stored["differences"]["strong"]
    assert change["iou"]["road"] == pytest.approx(0.3) and change["iou"]["train"] is None
    assert change["means"]["mean over 2 classes"]["recall"] == pytest.approx(0.8 - 0.6)


def test_csv_has_a_line_for_each_result_and_class_with_all_digits(tmp_path):
    write(tmp_path, WEAK, STRONG)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "evaluation.csv").read_text())))
    by_key = {(line["result"], line["class"]): line for line in lines}
    assert len(by_key) == len(lines) == 2 * (3 + 2 + 1)
    sky = by_key["strong", "sky"]
    assert float(sky["iou"]) == scores(STRONG, {})["iou"][1] == 8 / 9
    assert (sky["true_pixels"], sky["predicted_pixels"]) == ("8", "9")
    assert by_key["weak", "train"]["iou"] == "nan"
    assert float(by_key["weak", "mean over 2 of 3 classes"]["recall"]) == pytest.approx(0.675)
    assert float(by_key["weak", "pixel accuracy"]["iou"]) == pytest.approx(12 / 18)


MISSED = Result("missed", np.array([[6, 2, 0, 0], [1, 7, 0, 0], [3, 1, 0, 0]]), NAMES, 1, {})
"""The class train is in the truth, and never predicted."""


def test_a_mean_says_which_classes_it_leaves_out(tmp_path):
    told = write(tmp_path / "a", MISSED)
    absent = replace(MISSED, counts=np.array([[6, 2, 1, 0], [1, 7, 0, 0], [0, 0, 0, 0]]))
    for text in (told, (tmp_path / "a/evaluation.md").read_text()):
        words = " ".join(text.split())
        assert "train: never predicted, so the mean precision is over the other classes" in words
        assert "one that is never predicted no precision" in words
    words = " ".join(write(tmp_path / "b", absent).split())
    assert "train: not in the truth, so the mean recall is over the other classes" in words


def test_each_score_counts_its_own_classes(tmp_path):
    write(tmp_path, MISSED, replace(MISSED, name="again"))
    parts = (tmp_path / "evaluation.md").read_text().split("## ")
    by_name = {part.split("\n")[0]: part for part in parts}
    assert "mean over 2 of 3 classes" in by_name["precision"]
    for name in ("IoU", "recall"):
        assert "mean over 3 classes" in by_name[name] and "of 3" not in by_name[name]


def test_pictures_are_there_and_shown(tmp_path):
    write(tmp_path / "one", WEAK)
    write(tmp_path / "two", WEAK, STRONG)
    for folder, names in (
        ("one", {"iou.png", "confusion.png"}),
        ("two", {"iou.png", "confusion_1.png", "confusion_2.png"}),
    ):
        assert {path.name for path in (tmp_path / folder).glob("*.png")} == names
        text = (tmp_path / folder / "evaluation.md").read_text()
        for name in names:
            assert f"({name})" in text
            with Image.open(tmp_path / folder / name) as picture:
                picture.load()
    assert not list(tmp_path.rglob("*.part"))


def test_pictures_of_an_earlier_report_go(tmp_path):
    (tmp_path / "confusion_matrix.png").write_bytes(b"the user's own")
    write(tmp_path, WEAK, STRONG)
    write(tmp_path, WEAK)
    names = {"iou.png", "confusion.png", "confusion_matrix.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    write(tmp_path, WEAK, STRONG)
    assert not (tmp_path / "confusion.png").exists()


def test_a_report_of_other_results_is_replaced_and_named(tmp_path):
    assert "replaced" not in write(tmp_path, WEAK) + write(tmp_path, WEAK)
    told = f"{tmp_path} held the report of weak, which this one has replaced\n"
    assert write(tmp_path, STRONG).endswith(told)
    (tmp_path / "evaluation.json").write_text("{")  # what a full disk may leave of a copy
    assert "replaced" not in write(tmp_path, WEAK)


def test_19_classes_have_three_means(tmp_path):
    counts = np.concatenate([np.eye(19, dtype=int), np.zeros((19, 1), int)], axis=1)
    counts[9, 9], counts[9, 0] = 0, 1  # terrain: in the mean of 19 classes only
    result = Result("x", counts, CLASS_NAMES, 1, {})
    rows = cells(write(tmp_path, result, means=means(CLASS_NAMES)))
    iou = {row[0]: row[1] for row in rows if row[0].startswith("mean")}
    assert iou == {
        "mean over 19 classes": f"{100 * 17.5 / 19:.2f}",
        "mean over 16 classes": f"{100 * 15.5 / 16:.2f}",
        "mean over 13 classes": f"{100 * 12.5 / 13:.2f}",
    }


def test_no_note_where_every_class_has_a_value(tmp_path):
    every = np.concatenate([np.eye(3, dtype=int), np.zeros((3, 1), int)], axis=1)
    assert "official" not in write(tmp_path, Result("every", every, NAMES, 1, {}))
    assert "official" in write(tmp_path, STRONG)  # train has no recall
    assert "official" in write(tmp_path, WEAK)


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path):
    odd = Result("[red]", WEAK.counts, ("a|b", "[bold]x", "c"), 1, {})
    text = write(tmp_path, odd)
    assert "[bold]x" in text and "[red]" in text
    assert "| a\\|b |" in (tmp_path / "evaluation.md").read_text()


def test_results_of_different_classes_do_not_compare(tmp_path):
    other = Result("other", WEAK.counts, ("road", "sky", "bus"), 4, {})
    with pytest.raises(UserError, match=r"weak has 3 classes, other 3"):
        write(tmp_path, WEAK, other)
    assert not list(tmp_path.iterdir())


def test_a_failing_write_is_named_and_keeps_the_old_file(tmp_path, monkeypatch):
    write(tmp_path, WEAK)
    before = (tmp_path / "evaluation.json").read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("dasac_jax.files.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*iou.png: disk full"):
        write(tmp_path, STRONG)
    assert (tmp_path / "evaluation.json").read_bytes() == before
