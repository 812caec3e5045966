"""What `prepare_data.py own` shows, writes and refuses."""

import json
import runpy

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import list_files
from dasac_jax.own_data import command, outputs, survey

SEA, FIRE, NEAR, FAR = (0, 0, 200), (200, 0, 0), (8, 4, 190), (0, 250, 0)
FLAGS = "--source-images {}/s/images --source-labels {}/s/labels --target-images {}/t/images"


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    monkeypatch.setattr(outputs, "duration", lambda *_: "1 min")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def make(root, label, size=(40, 64), count=8):
    """Source pairs with one label for all, and target images."""
    for i in range(count):
        save(root / f"s/images/{i}.png", np.full((*size, 3), 9 * i))
        save(root / f"s/labels/{i}.png", label)
        save(root / f"t/images/{i}.png", np.full((*size, 3), 5 * i))


def numbers(*values, size=(40, 64)):
    """A label with these values in equal shares."""
    return np.resize(np.repeat(values, size[0] * size[1] // len(values)), size)


def colours(*values):
    return np.array(values)[numbers(*range(len(values)))]


def config(root):
    return runpy.run_path(str(root / "mine/mine.py"))["get_config"]().data


def written(root):
    return sorted(str(p.relative_to(root)) for p in (root / "mine").rglob("*") if p.is_file())


def refused(prepared, *words):
    code, out = prepared
    (error,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert code == 2 and all(word in error for word in words), error
    assert "Traceback" not in out


def test_a_dry_run_shows_all_and_writes_nothing(tmp_path, prepare):
    make(tmp_path, numbers(3, 7, 255, 255))
    before = sorted(tmp_path.rglob("*"))
    code, out = prepare(FLAGS, "--dry-run")
    assert "values: --classes " in out  # 3 and 7 are in several tables
    assert code == 0 and sorted(tmp_path.rglob("*")) == before
    rows = [line.split() for line in out.splitlines() if line[:1].isdigit()]
    assert ["3", "25.00", "8", "class", "3"] in rows and ["7", "25.00", "8", "class", "7"] in rows
    assert ["255", "50.00", "8", "–", "(ignored:", "unlabelled)"] in rows
    assert "8 pairs, as 0.png with 0.png" in out and "dry run: nothing was written" in out
    assert "chosen: data.source_size 64×40: the size of all 8 images" in out


def test_what_is_written_and_a_second_time(tmp_path, prepare, monkeypatch):
    make(tmp_path, numbers(3, 7))
    assert prepare(FLAGS)[0] == 0
    files = ["label_values.jsonl", "lists/source_train.txt", "lists/target_train.txt", "look.png"]
    assert written(tmp_path) == [f"mine/{name}" for name in (*files, "mine.py")]
    lines = list(list_files.read(tmp_path / "mine/lists/source_train.txt", lambda path: path))
    assert (lines[0].image, lines[0].label) == ("s/images/0.png", "s/labels/0.png")
    picture = np.asarray(Image.open(tmp_path / "mine/look.png"))
    assert picture.shape[1] > 3 * 64 and picture.shape[0] > 6 * 40
    # Nothing has changed, so nothing is in the way, and no label is read again.
    monkeypatch.setattr(survey, "read_values", None)
    assert prepare(FLAGS)[0] == 0
    (tmp_path / "mine/mine.py").write_text("mine\n")
    refused(prepare(FLAGS), "mine/mine.py is there and would be overwritten", "--force")
    assert (tmp_path / "mine/mine.py").read_text() == "mine\n"
    assert prepare(FLAGS, "--force")[0] == 0
    assert "class 3" in (tmp_path / "mine/mine.py").read_text()


@pytest.mark.parametrize("name", ["lists/val.txt", "look.png"])
def test_what_another_command_left_is_in_the_way(tmp_path, prepare, name):
    make(tmp_path, numbers(3, 7))
    (tmp_path / "mine/lists").mkdir(parents=True)
    (tmp_path / "mine" / name).write_text("mine\n")
    refused(prepare(FLAGS), f"mine/{name} is there and would be overwritten", "--force")
    assert (tmp_path / "mine" / name).read_text() == "mine\n"
    # The labels that were read are kept for the next try.
    assert written(tmp_path) == sorted(["mine/label_values.jsonl", f"mine/{name}"])


def test_a_command_that_was_stopped_goes_on(tmp_path, prepare, monkeypatch):
    make(tmp_path, numbers(3, 7))
    read, seen = survey.read_values, []

    def stopped(path, *more, **options):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(path)
        return read(path, *more, **options)

    monkeypatch.setattr(survey, "read_values", stopped)
    assert prepare(FLAGS, "--jobs", "1")[0] == 130
    kept = tmp_path / "mine/label_values.jsonl"
    assert len(kept.read_text().splitlines()) == 3
    kept.write_text(kept.read_text() + '{"key": "half a li')  # as after a kill
    save(seen[0], numbers(3, 9))  # changed since
    again = []
    monkeypatch.setattr(
        survey, "read_values", lambda p, *m, **o: again.append(p) or read(p, *m, **o)
    )
    assert prepare(FLAGS, "--jobs", "1")[0] == 0
    assert sorted(again) == sorted({*(tmp_path / "s/labels").iterdir()} - {*seen[1:]})
    assert "class 9" in config(tmp_path).classes.names


def test_near_colours_are_listed_and_ignored(tmp_path, prepare):
    make(tmp_path, colours(SEA, SEA, FIRE, NEAR, FAR))
    (tmp_path / "classes.txt").write_text("sea 0 0 200\nfire 200 0 0\nsnow 255 255 255\n")
    code, out = prepare(FLAGS, "--classes", str(tmp_path / "classes.txt"))
    assert code == 0
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "(8, 4, 190) 20.00 8 – (ignored: in no table, near sea)" in rows
    assert "(0, 250, 0) 20.00 8 – (ignored: in no table)" in rows
    assert "left out, since no source label shows them: snow" in out
    classes = config(tmp_path).classes
    assert classes.names == ("sea", "fire") and classes.palette == (SEA, FIRE)
    assert classes.source_ids == ((SEA, "sea"), (FIRE, "fire"))
    code, out = prepare(FLAGS, "--dry-run")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and "(0, 250, 0) 20.00 8 class 1" in rows


def test_many_unknown_colours_share_a_line(tmp_path, prepare):
    unknown = [(0, 100 + 10 * i, 0) for i in range(14)]
    make(tmp_path, colours(SEA, FIRE, *unknown))
    (tmp_path / "classes.txt").write_text("sea 0 0 200\nfire 200 0 0\n")
    code, out = prepare(FLAGS, "--classes", str(tmp_path / "classes.txt"))
    assert code == 0
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert sum(row.startswith("(0, ") and row.endswith("in no table)") for row in rows) == 8
    assert "6 more 37.50 – (in no table)" in rows  # 6 of 16 equal shares


@pytest.mark.parametrize("ignored", ["9", "class 9"])
def test_values_are_ignored_by_number_and_name(tmp_path, prepare, ignored):
    make(tmp_path, numbers(3, 9, 255))
    code, out = prepare(FLAGS, "--ignore", ignored)
    assert code == 0 and "--ignore)" in out
    assert config(tmp_path).classes.names == ("class 3", "class 255")


def test_colours_are_ignored(tmp_path, prepare):
    make(tmp_path, colours(SEA, FIRE, FAR))
    assert prepare(FLAGS, "--ignore", "#00fa00")[0] == 0
    assert [key for key, _ in config(tmp_path).classes.source_ids] == [SEA, FIRE]


def test_the_target_may_have_a_table_of_its_own(tmp_path, prepare):
    make(tmp_path, numbers(7, 26))
    for i in range(2):
        save(tmp_path / f"t/labels/{i}.png", numbers(0, 13, 18, 255))
    more = ("--target-labels", str(tmp_path / "t/labels"), "--classes", "cityscapes")
    code, out = prepare(FLAGS, *more, "--target-classes", "cityscapes-train-ids")
    assert code == 0 and "target: 6 images without label" in out
    assert "bicycle, not in the source" in out
    classes = config(tmp_path).classes
    assert classes.names == ("road", "car") and classes.source_ids == ((7, "road"), (26, "car"))
    assert classes.target_ids == ((0, "road"), (13, "car"))
    assert len((tmp_path / "mine/lists/val.txt").read_text().splitlines()) == 2
    assert len((tmp_path / "mine/lists/target_train.txt").read_text().splitlines()) == 8


def test_numbers_of_objects_belong_to_their_class(tmp_path, prepare):
    make(tmp_path, numbers(7, 26))
    for i in range(8):
        label = numbers(7, 26001, 26002, 4).astype(np.uint16)
        Image.fromarray(label).save(tmp_path / f"s/labels/{i}.png")
    assert prepare(FLAGS, "--classes", "cityscapes")[0] == 0
    ids = (
        (7, "road"), ((7000, 7999), "road"), (26, "car"), ((26000, 26999), "car"),
    )  # fmt: skip
    assert config(tmp_path).classes.source_ids == ids


ONE_LINERS = {
    "one class": (numbers(7), (40, 64), 8, "one class only: of the label values 7 (100.0 %)"),
    "another size": (numbers(3, 7, size=(40, 40)), (40, 64), 8, "labels of another size: "),
    "small": (numbers(3, 7, size=(20, 30)), (20, 30), 8, "smaller than the smallest crop, 32×32"),
    "few": (numbers(3, 7), (40, 64), 3, "3 source images are fewer than the smallest batch of 8"),
    "many values": (np.arange(2560).reshape(40, 64) % 255, (40, 64), 8, "say which are classes"),
}


@pytest.mark.parametrize("kind", ONE_LINERS)
def test_data_that_cannot_work_are_refused_in_a_line(tmp_path, prepare, kind):
    label, size, count, words = ONE_LINERS[kind]
    make(tmp_path, label, size, count)
    refused(prepare(FLAGS), words)
    assert not (tmp_path / "mine").exists()


def test_a_table_of_other_values_is_refused_with_those_that_fit(tmp_path, prepare):
    make(tmp_path, colours((64, 0, 128), (128, 64, 128)))
    refused(
        prepare(FLAGS, "--classes", "mapillary"),
        "one class only", "(128, 64, 128) stands for a class, 'construction--flat--road'",
    )  # fmt: skip
    (tmp_path / "classes.txt").write_text("sea\nfire\n")
    refused(
        prepare(FLAGS, "--classes", str(tmp_path / "classes.txt")),
        "no label value stands for a class", "--classes camvid11 or camvid32 names them",
    )  # fmt: skip


def test_no_table_is_proposed_that_ignores_all_values(tmp_path, prepare):
    """Cityscapes' ids 0 to 2 are void."""
    make(tmp_path, numbers(0, 1, 2))
    code, out = prepare(FLAGS, "--classes", "cityscapes")
    assert code == 2 and "no label value stands for a class" in out
    proposed = out.split("--classes ")[1].split(" names them")[0].split(" or ")
    assert "cityscapes-train-ids" in proposed and "cityscapes" not in proposed


def test_fewer_images_than_a_batch_get_a_smaller_one(tmp_path, prepare, monkeypatch):
    make(tmp_path, numbers(3, 7), count=3)
    monkeypatch.setattr(outputs, "machine", lambda: outputs.Machine(False, 1, 2**33))
    code, out = prepare(FLAGS)
    assert code == 0
    assert "batches of 3: 3 source images do not fill one of 4" in out
    settings = runpy.run_path(str(tmp_path / "mine/mine.py"))["get_config"]()
    assert settings.baseline.source_batch == settings.adapt.source_batch == 3


def test_scaled_labels_and_small_target_images_are_told(tmp_path, prepare):
    make(tmp_path, numbers(3, 7, size=(80, 128)))
    save(tmp_path / "t/images/0.png", np.zeros((20, 32, 3)))
    code, out = prepare(FLAGS)
    assert code == 0
    assert "8 labels have another size than their images, in the same proportions" in out
    assert "1 of 8 target images are smaller than the crop of 64×40" in out


def test_what_was_read_is_kept_by_file(tmp_path, prepare):
    make(tmp_path, colours(SEA, FIRE))
    assert prepare(FLAGS)[0] == 0
    entries = [
        json.loads(line) for line in (tmp_path / "mine/label_values.jsonl").read_text().splitlines()
    ]
    assert len(entries) == 8 and entries[0]["size"] == [40, 64]


def test_many_places_become_a_pattern(tmp_path):
    for name in ("a1.png", "a2.png", "a3.png", "a4.png", "a5.png", "b.png"):
        save(tmp_path / name, np.zeros((2, 2)))
    given = [str(path) for path in sorted(tmp_path.glob("a*"))]
    assert command.pattern(given) == [f"{tmp_path}/a*"]
    assert command.pattern([str(tmp_path)]) == [str(tmp_path)]
    assert command.pattern([*given[1:], str(tmp_path / "b.png")]) == [str(tmp_path)]
