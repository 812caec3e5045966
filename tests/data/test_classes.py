"""Classes of one's own: what a configuration may say, and what it may not."""

import pytest
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax.data import classes
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError

RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (90, 90, 90)


def changed(**section):
    config = recipe.base()
    config.data.source = "custom"
    config.data.lists = "lists"
    config.data.classes.update(section)
    return config


def test_the_base_has_cityscapes_classes_and_prepared_labels():
    data = recipe.base().data
    assert classes.of(data) is CLASSES
    for role in ("source_train", "target_train", "val"):
        assert classes.id_map(data, role) == ()
    assert classes.of(ConfigDict({"source": "gta5"})) is CLASSES  # a section that does not say


@pytest.mark.parametrize(
    ("names", "palette"),
    [
        (("no", "yes"), (RED, BLUE)),
        (("a", "b", "c d"), (RED, BLUE, BLUE)),
        (tuple(map(str, range(254))), (RED,) * 254),
    ],
)
def test_any_number_of_classes_from_two_up(names, palette):
    config = changed(names=names, palette=palette)
    recipe.check(config)
    found = classes.of(config.data)
    assert tuple(entry.name for entry in found) == names
    assert tuple(entry.color for entry in found) == palette
    assert [entry.train_id for entry in found] == list(range(len(names)))


def test_a_mask_of_two_classes():
    ids = ((0, "no"), (255, "yes"))
    config = changed(names=("no", "yes"), palette=(RED, BLUE), source_ids=ids)
    recipe.check(config)
    assert classes.id_map(config.data, "source_train") == ((0, 0), (255, 1))


def test_source_and_target_have_their_own_values():
    config = changed(
        names=("a", "b"),
        palette=(RED, BLUE),
        source_ids=((7, "b"), (8, "b"), (1, "a")),
        target_ids=((0, "b"),),
    )
    recipe.check(config)
    for role in ("source_train", "source_val"):
        assert classes.id_map(config.data, role) == ((7, 1), (8, 1), (1, 0))
    for role in ("target_train", "selection", "val"):
        assert classes.id_map(config.data, role) == ((0, 1),)


def test_ranges_and_colours_stand_for_classes_too():
    ids = (((512, 514), "b"), (BLUE, "a"), (7, "a"))
    config = changed(names=("a", "b"), palette=(RED, BLUE), source_ids=ids)
    recipe.check(config)
    expected = ((512, 1), (513, 1), (514, 1), (BLUE, 0), (7, 0))
    assert classes.id_map(config.data, "source_train") == expected


def test_values_may_stand_for_cityscapes_classes():
    config = changed(source_ids=tuple((100 + i, x.name) for i, x in enumerate(CLASSES)))
    recipe.check(config)
    assert classes.of(config.data) is CLASSES
    assert dict(classes.id_map(config.data, "source_train"))[113] == 13


TWO = {"names": ("a", "b"), "palette": (RED, BLUE)}


@pytest.mark.parametrize(
    ("section", "key", "problem"),
    [
        ({"names": ("a",), "palette": (RED,)}, "names", "from 2 to 254 classes work"),
        ({"names": ("x",) * 255, "palette": (RED,) * 255}, "names", "from 2 to 254"),
        ({"names": ("a", ""), "palette": (RED, BLUE)}, "names", "words with single spaces"),
        ({"names": ("a", "b\tc"), "palette": (RED, BLUE)}, "names", "words with single spaces"),
        ({"names": ("a", 7), "palette": (RED, BLUE)}, "names", "words with single spaces"),
        ({"names": ("a", "a"), "palette": (RED, BLUE)}, "names", "a name of its own"),
        ({"names": ("a", "b"), "palette": (RED,)}, "palette", "1 colours do not fit 2 names"),
        ({"names": ("a", "b")}, "palette", "0 colours do not fit 2 names"),
        ({"palette": (RED,)}, "palette", "1 colours do not fit 0 names"),
        ({"names": ("a", "b"), "palette": (RED, (0, 0))}, "palette", "three whole numbers"),
        ({"names": ("a", "b"), "palette": (RED, (0, 0, 256))}, "palette", "three whole numbers"),
        ({"names": ("a", "b"), "palette": (RED, "blue")}, "palette", "three whole numbers"),
        ({**TWO, "source_ids": ((1, "c"),)}, "source_ids", "'c', for label value 1, is none of"),
        ({**TWO, "target_ids": ((1, "road"),)}, "target_ids", "none of the classes a, b"),
        ({**TWO, "source_ids": ((65536, "a"),)}, "source_ids", "number from 0 to 65535"),
        ({**TWO, "source_ids": (((0, 0, 256), "a"),)}, "source_ids", "is no pair"),
        ({**TWO, "source_ids": (((9, 8), "a"),)}, "source_ids", "a range of them (first, last)"),
        ({**TWO, "source_ids": (((1, 9), "a"), (9, "b"))}, "source_ids", "value 9 is given twice"),
        ({**TWO, "source_ids": ((RED, "a"), (RED, "b"))}, "source_ids", f"value {RED} is given"),
        ({**TWO, "source_ids": (("a", 1),)}, "source_ids", "is no pair"),
        ({**TWO, "source_ids": (1, 2)}, "source_ids", "is no pair"),
        ({**TWO, "target_ids": ((1, "a"), (1, "b"))}, "target_ids", "value 1 is given twice"),
        ({**TWO, "source_ids": ((1, "a"),)}, "source_ids", "no label value stands for 'b'"),
        ({"source_ids": ((1, "tram"),)}, "source_ids", "'tram'"),
    ],
)
def test_mistakes_are_named_by_key(section, key, problem):
    config = changed(**section)
    with pytest.raises(UserError) as caught:
        recipe.check(config)
    text = str(caught.value)
    assert text.startswith(f"config.data.classes.{key} is ")
    assert problem in text and "\n" not in text


@pytest.mark.parametrize("section", [TWO, {"source_ids": ((1, "road"),)}])
def test_known_data_sets_have_known_classes(section):
    config = changed(**section)
    config.data.source = "synthia"
    with pytest.raises(UserError, match=r'own classes|data\.source = "custom"'):
        recipe.check(config)


def test_own_data_need_lists_and_left_out_classes_are_among_them():
    config = changed(**TWO)
    config.left_out = (1,)
    recipe.check(config)
    config.left_out = (2,)
    with pytest.raises(UserError, match=r"config\.left_out is \(2,\): train ids from 0 to 1"):
        recipe.check(config)
    config.left_out = (1, 0)
    with pytest.raises(UserError, match="no class remains"):
        recipe.check(config)
    config.left_out = ()
    config.data.lists = ""
    with pytest.raises(UserError, match=r"config\.data\.lists is ''.*need list files"):
        recipe.check(config)
