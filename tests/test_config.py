"""Mistakes in configurations and flags: each is named, with its key, before anything runs."""

import pytest

from dasac_jax import config as recipe
from dasac_jax.errors import UserError


def changed(**changes):
    config = recipe.base()
    for key, value in changes.items():
        with config.unlocked(), config.ignore_type():
            config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def test_the_base_passes():
    recipe.check(recipe.base())


def test_flatten_names_nested_keys():
    flat = recipe.flatten(recipe.base())
    assert flat["adapt.crop"] == (512, 1024) and flat["seed"] == 0
    assert not [value for value in flat.values() if hasattr(value, "keys")]
    assert recipe.flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("baseline,weights,adapt", ("baseline", "weights", "adapt")),
        (" baseline , adapt ", ("baseline", "adapt")),
        ("weights", ("weights",)),
    ],
)
def test_stages(given, expected):
    assert recipe.stages(changed(stages=given)) == expected


@pytest.mark.parametrize("given", ["", ",", "adapt,baseline", "baseline,train", "adapt,adapt"])
def test_misordered_and_unknown_stages_are_refused(given):
    with pytest.raises(UserError, match=r"config\.stages is .*baseline,weights,adapt, in this"):
        recipe.check(changed(stages=given))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("dtype", "float16", "choose one of float32, bfloat16"),
        ("select", "worst", "best, last"),
        ("data__source", "kitti", "gta5, synthia"),
        ("data__statistics", "", "gta5, synthia"),
        ("optimiser__kind", "lion", "sgd, adam"),
        ("adapt__pool", "max", "average, minentropy, none"),
        ("adapt__confidence_weighting", "image", "pixel, batch, none"),
        ("baseline__crop", (640,), "two positive whole numbers"),
        ("adapt__crop", (512, 0), "two positive whole numbers"),
        ("data__target_size", (1024.5, 2048), "two positive whole numbers"),
        ("adapt__zoom", ("a", "b"), "two positive numbers"),
        ("baseline__scale", (2.0, 0.5), "the lower end comes first"),
        ("left_out", (19,), "train ids from 0 to 18"),
        ("left_out", ("sky",), "train ids from 0 to 18"),
        ("seed", -1, "negative"),
        ("seed", 2**32, "below 2"),
        ("adapt__epochs", 0, "a positive number is needed"),
        ("adapt__learning_rate", -1e-3, "a positive number is needed"),
        ("baseline__learning_rate", float("nan"), "a finite number"),
        ("adapt__target_weight", float("inf"), "a finite number"),
        ("adapt__groups", 0, "a positive number is needed"),
        ("baseline__source_batch", -8, "a positive number is needed"),
        ("data__selection_images", -1, "negative"),
        ("log_every_steps", 0, "a positive number is needed"),
        ("adapt__teacher_momentum", 1.01, "from 0 to 1"),
        ("adapt__threshold_lower", 1.5, "from 0 to 1"),
        ("adapt__threshold_upper", 75.0, "from 0 to 1"),
        ("optimiser__momentum", 9.0, "from 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused_by_key(key, value, problem):
    with pytest.raises(UserError) as caught:
        recipe.check(changed(**{key: value}))
    text = str(caught.value)
    assert text.startswith(f"config.{key.replace('__', '.')} is {value!r}: ")
    assert problem in text and "\n" not in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("left_out", (9, 14, 16)),
        ("adapt__threshold_lower", 0.0),
        ("adapt__threshold_upper", 1.0),
        ("baseline__jitter", 0),
        ("baseline__scale", (1.0, 1.0)),
        ("adapt__teacher_momentum", 1.0),
        ("adapt__discount", False),
    ],
)
def test_values_at_the_edge_pass(key, value):
    recipe.check(changed(**{key: value}))


def test_an_adaptation_without_epochs_of_its_own_is_refused():
    with pytest.raises(UserError, match=r"config\.adapt\.epochs is 100: .* both stages.* 100"):
        recipe.check(changed(adapt__epochs=100, select="last"))
    recipe.check(changed(adapt__epochs=101, select="last"))
    # The best snapshot may be an early one; and epochs of a stage that does not run do not matter.
    recipe.check(changed(adapt__epochs=100, select="best"))
    recipe.check(changed(adapt__epochs=100, select="last", stages="weights,adapt"))
