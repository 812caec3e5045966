"""Class tables: those that come along, and what people write."""

import pytest
from cityscapesscripts.helpers import labels as published

from dasac_jax.data import labels
from dasac_jax.errors import UserError
from dasac_jax.own_data import class_files
from dasac_jax.own_data.class_files import Row

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_every_table_says_where_it_is_from():
    assert class_files.known() == (
        "acdc", "bdd100k", "camvid11", "camvid32", "cityscapes", "cityscapes-train-ids", "idd",
        "mapillary", "mapillary-v2",
    )  # fmt: skip
    for name in class_files.known():
        text = (class_files.TABLES / f"{name}.csv").read_text()
        assert text.startswith("# title: ") and "\n# source: " in text


def test_tables_hold_what_the_data_sets_define():
    expected = tuple(entry.name for entry in labels.CLASSES)
    for name in ("cityscapes", "acdc", "cityscapes-train-ids", "bdd100k"):
        table = class_files.read(name)
        assert table.names == expected
        by_colour = table.by_colour()
        for entry in labels.CLASSES:
            id_ = entry.label_id if name in ("cityscapes", "acdc") else entry.train_id
            assert table.by_id()[id_].name == by_colour[entry.color].name == entry.name
    counts = {name: len(class_files.read(name).names) for name in class_files.known()}
    assert (counts["camvid11"], counts["camvid32"], counts["idd"]) == (11, 31, 26)
    assert (counts["mapillary"], counts["mapillary-v2"]) == (65, 123)
    assert sorted(class_files.read("idd").by_id()) == [*range(26), 255]
    assert class_files.read("mapillary").by_id()[13] == Row(
        "construction--flat--road", 13, (128, 64, 128)
    )
    # Every colour of the 32 classes belongs to one of the 11, and to none twice.
    grouped = class_files.read("camvid11").by_colour()
    assert all(colour in grouped for colour in class_files.read("camvid32").by_colour())
    assert grouped[(0, 128, 64)].name == "building"  # a bridge


def test_cityscapes_agrees_with_its_own_scripts():
    rows = class_files.read("cityscapes").by_id()
    expected = {x.id: (x.name, x.color, x.trainId == 255) for x in published.labels if x.id >= 0}
    assert {i: (r.name, r.colour, r.ignored) for i, r in rows.items()} == expected


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.txt", "sea\nfire\n", [("sea", 0, None), ("fire", 1, None)]),
        ("a.txt", "3 sea\nopen fire 255\n", [("sea", 3, None), ("open fire", 255, None)]),
        ("a.txt", "0 0 255\tsea\n255 0 0\tfire\n", [("sea", None, BLUE), ("fire", None, RED)]),
        ("a.txt", "# x\nsea 7 0 0 255\nfire #FF0000 9\n\n", [("sea", 7, BLUE), ("fire", 9, RED)]),
        ("a.txt", "#0000ff 7 sea\n9 #ff0000 fire\n", [("sea", 7, BLUE), ("fire", 9, RED)]),
        (
            "a.csv",
            "name,r,g,b\nsea,0,0,255\nfire,255,0,0\n",
            [("sea", None, BLUE), ("fire", None, RED)],
        ),
        ("a.csv", "\ufeffid;class\r\n4;sea\r\n5;fire\r\n", [("sea", 4, None), ("fire", 5, None)]),
        ("a.csv", '4,"sea, open"\n5,fire\n', [("sea, open", 4, None), ("fire", 5, None)]),
        ("a.json", '["sea", "fire"]', [("sea", 0, None), ("fire", 1, None)]),
        ("a.json", '{"sea": 4, "fire": [255, 0, 0]}', [("sea", 4, None), ("fire", None, RED)]),
        ("a.json", '{"classes": {"4": "sea", "5": "fire"}}', [("sea", 4, None), ("fire", 5, None)]),
        (
            "a.json",
            '{"labels": [{"name": "sea", "color": [0, 0, 255]}, {"name": "fire", "id": 9}]}',
            [("sea", 0, BLUE), ("fire", 9, None)],
        ),
    ],
)  # fmt: skip
def test_files_as_people_have_them(tmp_path, name, text, rows):
    (tmp_path / name).write_text(text)
    assert list(class_files.read(tmp_path / name).rows) == [Row(*row) for row in rows]


def test_what_is_ignored_is_no_class(tmp_path):
    (tmp_path / "a.csv").write_text("name,id,ignored\nsea,1,\nfire,2,no\nsky,3,yes\nvoid,255,\n")
    table = class_files.read(tmp_path / "a.csv")
    assert table.names == ("sea", "fire")
    assert table.by_id()[3].ignored and table.by_id()[255].ignored
    (tmp_path / "b.txt").write_text("sea 1\nsea 2\nfire 3\nUnlabelled 0\n")
    assert class_files.read(tmp_path / "b.txt").names == ("sea", "fire")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "sea 1 2\nfire 3\n", r"a\.txt, line 1: a name, and an id, a colour"),
        ("a.txt", "sea 1\n7\n", r"a\.txt, line 2: a name"),
        ("a.txt", "sea 1\nfire 70000\n", "line 2: id 70000 is not from 0 to 65535"),
        ("a.txt", "sea 1 2 300\nfire 3\n", "line 1: .* is no colour"),
        ("a.txt", "sea 1\nfire 1\n", "id 1 stands for 'sea' and 'fire'"),
        ("a.txt", "sea 0 0 9\nfire #000009\n", r"colour \(0, 0, 9\) stands for 'sea' and 'fire'"),
        ("a.txt", "sea 1\nfire 0.5\n", "line 2: 0.5 is no id"),
        ("a.txt", "sea 1\n", "names 1 classes: at least two"),
        ("a.txt", "", "names 0 classes"),
        ("a.csv", "name,id\nsea,one\nfire,2\n", "line 2: invalid literal"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "7", "a list or an object"),
        ("a.json", "[7]", "entry 0: no class"),
        ("a.json", '[{"id": 3}]', "entry 0: the class has no name"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        class_files.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_unknown_tables_are_refused_with_the_next_one(tmp_path):
    with pytest.raises(UserError, match="did you mean cityscapes"):
        class_files.read("cityscape")
    with pytest.raises(UserError, match="known tables: acdc"):
        class_files.read(str(tmp_path / "xyz"))
