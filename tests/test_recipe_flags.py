"""Recipes and overrides on the command line, and what is wrong with them."""

import runpy
import sys

import pytest
from absl import app, flags

from dasac_jax import config as recipe
from dasac_jax import (
    main,  # noqa: F401 (defines the flags)
    recipe_flags,
)

DEMO = ("--config", "configs/demo.py")


def parse(monkeypatch, request, *argv):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(sys, "argv", ["main", *argv])
    flags.FLAGS.unparse_flags()
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # overrides of an earlier parse
    return recipe_flags.parse_flags(sys.argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((*DEMO, "--config.baseline.epoch=1"), "closest is --config.baseline.epochs"),
        ((*DEMO, "--config.adapt.bta=1"), "closest is --config.adapt.beta"),
        ((*DEMO, "--config.stage", "adapt"), "closest is --config.stages"),
        ((*DEMO, "--noconfig.adapt.discont"), "closest is --config.adapt.discount"),
        ((*DEMO, "--config.learning_rate=1"), "closest is --config.adapt.learning_rate"),
        ((*DEMO, "--config.momentum=1"), "closest is --config.optimiser.momentum"),
        ((*DEMO, "--config.seed.x=3"), "closest is --config.seed\n"),
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


def test_help_is_no_failure(monkeypatch, request, capsys):
    app.define_help_flags()  # as `app.run` does
    with pytest.raises(SystemExit) as ended:
        parse(monkeypatch, request, "--help")
    assert not ended.value.code and "--helpfull" in capsys.readouterr().out


def test_a_file_that_is_no_recipe_is_refused(monkeypatch, request, capsys, tmp_path):
    (tmp_path / "recipe.py").write_text("x = 1\n")
    with pytest.raises(SystemExit):
        parse(monkeypatch, request, "--config", str(tmp_path / "recipe.py"))
    assert "recipe.py defines no get_config()" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("config.adapt.targt_weight = 1.0", "closest is config.adapt.target_weight\n"),
        ("config.adapt.epoch = 1500", "config.adapt.epoch: there is no such key; the closest is"),
        ("config.demo = config.data.classes", "config.demo.names: there is no such key"),
        ("del config.adapt.beta", "config.adapt.beta is missing"),
        ("config.adapt.epochs = 'abc'", "line 4: TypeError: "),
        ("config.adapt.epochs = 1500.5", "line 4: TypeError: "),
        ("config.adapt.epochs = undefined", "line 4: NameError: name 'undefined'"),
        ("config.adapt.epochs = = 3", "line 4: SyntaxError: invalid syntax"),
        ("recipe.use_dinov2(config, 'vit')", "line 4: KeyError: 'vit'"),
        ("return None", "get_config() of {path} returns NoneType"),
    ],
)
def test_mistakes_in_a_recipe_are_named(line, words, monkeypatch, request, capsys, tmp_path):
    path = tmp_path / "mine.py"
    begin = "from dasac_jax import config as recipe\ndef get_config():\n"
    lines = ["config = recipe.base()", line, "return config"]
    path.write_text(begin + "".join(f"    {each}\n" for each in lines), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        parse(monkeypatch, request, f"--config={path}")
    printed = capsys.readouterr()
    assert ended.value.code == 2 and not printed.out
    assert printed.err.startswith("error: --config") and printed.err.count("\n") == 1
    assert str(path) in printed.err and words.format(path=path) in printed.err


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
