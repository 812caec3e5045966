"""Mistakes in configurations and flags: each is named, with its key, before anything runs."""

import runpy
import sys

import pytest
from absl import flags

from dasac_jax import config as recipe
from dasac_jax import main  # noqa: F401 (defines the flags)
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


DEMO = ("--config", "configs/demo.py")


def parse(monkeypatch, request, *argv):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(sys, "argv", ["main", *argv])
    flags.FLAGS.unparse_flags()
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # overrides of an earlier parse
    return recipe.parse_flags(sys.argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((*DEMO, "--config.baseline.epoch=1"), "closest is --config.baseline.epochs"),
        ((*DEMO, "--config.adapt.bta=1"), "closest is --config.adapt.beta"),
        ((*DEMO, "--config.stage", "adapt"), "closest is --config.stages"),
        ((*DEMO, "--noconfig.adapt.discont"), "closest is --config.adapt.discount"),
        ((*DEMO, "--config.seed.x=3"), "--config.seed.x"),
        ((*DEMO, "--config.baseline.crop[0]=3"), "closest is --config.baseline.crop"),
        (("--config", "configs/gta_r101.py", "--config.demo.height=9"), "no such key"),
        ((*DEMO, "--config.seed=one"), "config.seed=one"),
        ((*DEMO, "--config.baseline.epochs=1.5"), "config.baseline.epochs=1.5"),
        ((*DEMO, "--config.adapt.discount=maybe"), "config.adapt.discount=maybe"),
        (("--config", "configs/none.py"), "no file configs/none.py"),
        (("--config=configs",), "no file configs"),
        (("--config",), "--config"),
        ((*DEMO, "--steps=3"), "steps"),
        ((*DEMO, "extra"), "'extra'"),
    ],
)
def test_wrong_flags_end_with_one_line_and_code_2(argv, words, monkeypatch, request, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(monkeypatch, request, *argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert words in printed.err and not printed.out


def test_a_file_that_is_no_recipe_is_refused(monkeypatch, request, capsys, tmp_path):
    (tmp_path / "recipe.py").write_text("x = 1\n")
    with pytest.raises(SystemExit):
        parse(monkeypatch, request, "--config", str(tmp_path / "recipe.py"))
    assert "recipe.py defines no get_config()" in capsys.readouterr().err


def test_a_copied_recipe_works_and_is_executed_once(monkeypatch, request, tmp_path):
    original = request.config.rootpath / "configs" / "synthia_fcn.py"
    copy, executions = tmp_path / "mine.py", tmp_path / "executions"
    count = f'with open({str(executions)!r}, "a") as file:\n    file.write("once\\n")\n'
    copy.write_text(original.read_text(encoding="utf-8") + count, encoding="utf-8")
    parse(monkeypatch, request, f"--config={copy}", "--config.adapt.groups", "1")
    expected = recipe.flatten(runpy.run_path(str(original))["get_config"]()) | {"adapt.groups": 1}
    assert recipe.flatten(flags.FLAGS.config) == expected
    assert executions.read_text() == "once\n"


def test_of_two_recipes_the_last_one_counts(monkeypatch, request):
    parse(monkeypatch, request, *DEMO, "--config=configs/gta_fcn.py")
    assert flags.FLAGS.config.arch == "fcn_vgg16_bn"


def test_overrides_reach_the_configuration(monkeypatch, request):
    overrides = ("--config.seed=7", "--config.baseline.crop=(32,48)", "--noconfig.adapt.discount")
    parse(monkeypatch, request, *DEMO, "--workdir", "there", *overrides)
    config = flags.FLAGS.config
    assert (config.seed, config.baseline.crop, config.adapt.discount) == (7, (32, 48), False)
    assert flags.FLAGS.workdir == "there"
    with pytest.raises(AttributeError):
        config.adapt.betta = 1  # locked
