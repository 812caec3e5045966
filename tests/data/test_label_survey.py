"""Label files of another kind than the configuration says are found before they are used."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import label_survey
from dasac_jax.data.label_survey import Meaning, Survey
from dasac_jax.data.labels import CLASS_NAMES
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError

NAMES = ("background", "road")
TRAINED = {"own": True, "key": "data.classes.source_ids", "is_trained_on": True}
SCORED = {"own": True, "key": "data.classes.target_ids"}


def found(values, *, total=1):
    """A survey of one file with these pixel counts by value."""
    return Survey(Counter(values), 1, total)


def error(values, meaning, *, total=1, names=()):
    with pytest.raises(UserError) as caught:
        label_survey.check(found(values, total=total), "val", meaning, names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "id_map", "words"),
    [
        ({0: 3, 1: 1}, ((100, 0), (200, 1)), ["names 100, 200", "0 (75.0 %), 1 (25.0 %)"]),
        ({0: 3, 1: 1}, ((0, 0), (255, 1)), ["'road', label value 255, does not occur", "1 (25.0"]),
        ({0: 1, 255: 1}, ((0, 0), (1, 1)), ["'road', label value 1,", "0 (50.0 %), 255 (50.0 %)"]),
        ({1: 1, 2: 1}, ((0, 0), (1, 1)), ["'background', label value 0,", "2 (50.0 %)"]),
    ],
)
@pytest.mark.parametrize("use", [TRAINED, SCORED], ids=["trained on", "scored"])
def test_an_id_map_that_names_other_values_is_refused(values, id_map, words, use):
    said = error(values, Meaning(id_map, NAMES, **use))
    for word in (*words, use["key"]):
        assert word in said
    assert "\n" not in said


@pytest.mark.parametrize("use", [TRAINED, SCORED], ids=["trained on", "scored"])
def test_a_mask_without_an_id_map_gets_the_hint(use):
    said = error({0: 1, 255: 3}, Meaning((), NAMES, **use), total=9000)
    assert f"{use['key']}=((0, 'background'), (255, 'road'))" in said
    assert "1 of its 9000 label files hold 255 (75.0 %), 0 (25.0 %)" in said


@pytest.mark.parametrize("id_map", [(), ((7, 0), (8, 1), (9, 2))])
def test_a_class_that_nothing_could_teach_is_refused_where_it_is_trained_on(id_map):
    first = id_map[0][0] if id_map else 0
    labels = {first: 5, first + 1: 5, 255: 1}
    meaning = Meaning(id_map, ("sky", "road", "car"), **TRAINED)
    said = error(labels, meaning)
    assert "'car'" in said and "nothing could teach it" in said and "data.classes.names" in said
    # Scored images may simply not show it.
    scored = Meaning(id_map, meaning.class_names, **SCORED)
    assert label_survey.check(found(labels), "val", scored) == [2]


def test_a_class_that_a_sample_lacks_may_be_rare():
    meaning = Meaning(((1, 0), (2, 1)), NAMES, **TRAINED)
    assert label_survey.check(found({1: 5, 3: 1}, total=2), "source_train", meaning) == [1]


def test_several_values_may_stand_for_one_class():
    meaning = Meaning(((1, 0), (2, 1), (3, 1)), NAMES, **TRAINED)
    assert label_survey.check(found({1: 5, 3: 1}), "source_train", meaning) == []


def test_prepared_labels_need_not_show_all_19_classes():
    meaning = Meaning((), CLASS_NAMES, own=False)
    assert label_survey.check(found({0: 5, 255: 1}), "source_train", meaning) == []
    assert "labels of another kind" in error({255: 9}, meaning)


def test_placeholders_of_a_test_split_are_refused_by_name_and_values():
    meaning = Meaning((), CLASS_NAMES, own=False)
    names = ["a_000000_000019_gtFine_labelIds.png"]
    assert "placeholders" in error({0: 90, 1: 7, 3: 3}, meaning, names=names)
    assert label_survey.check(found({0: 90, 1: 7, 3: 3}), "val", meaning, ["a.png"]) == []
    assert label_survey.check(found({0: 90, 3: 3, 255: 1}), "val", meaning, names) == []


def test_values_are_described_with_classes_and_shares():
    meaning = Meaning(((0, 0), (255, 1)), NAMES, **TRAINED)
    said = label_survey.described(found({0: 5, 255: 4, 7: 1}), "val", meaning)
    assert said == (
        "val: its 1 label files hold 0 background (50.0 %), 255 road (40.0 %); ignored: 7 (10.0 %)"
    )
    assert label_survey.ignored_share(found({0: 5, 255: 4, 7: 1}).counts, meaning) == (
        pytest.approx(0.1)
    )


def source(folder, labels, **options):
    """Pairs whose labels are these, with one image for all."""
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "image.png")
    for index, label in enumerate(labels):
        Image.fromarray(np.asarray(label, np.uint8)).save(folder / f"{index}.png")
    pairs = tuple(("image.png", f"{index}.png") for index in range(len(labels)))
    return PairSource(str(folder), pairs, (2, 2), "val", **options)


def test_raw_values_of_a_sample_are_counted(tmp_path):
    pairs = source(tmp_path, [[[index, 200]] for index in range(9)], id_map=((200, 0),))
    whole = label_survey.survey(pairs)
    assert whole.is_whole and whole.counts[200] == 9 and all(whole.counts[i] == 1 for i in range(9))
    some = label_survey.survey(pairs, most=3)
    assert (some.files, some.total) == (3, 9) and not some.is_whole
    assert sorted(some.counts) == [1, 4, 7, 200]  # spread evenly


def test_a_value_that_is_no_train_id_is_named_with_its_file(tmp_path):
    pairs = source(tmp_path, [[[0, 1]], [[0, 2]]], num_classes=2)
    with pytest.raises(UserError, match=r"1\.png contains 2, .*item 1 of val"):
        label_survey.survey(pairs)


def test_colours_are_counted_and_told_like_numbers():
    meaning = Meaning((((255, 0, 0), 0), ((0, 0, 255), 1)), NAMES, **TRAINED)
    counted = found({(255, 0, 0): 3, (0, 0, 255): 4, (9, 9, 9): 1})
    assert label_survey.check(counted, "source_train", meaning) == []
    told = label_survey.described(counted, "source_train", meaning)
    assert "(0, 0, 255) road (50.0 %)" in told and "ignored: (9, 9, 9) (12.5 %)" in told
    said = error({(255, 0, 0): 3, (9, 9, 9): 1}, meaning)
    assert "'road', label value (0, 0, 255), does not occur" in said
