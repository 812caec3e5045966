"""Whose a work directory is, and what is said to be missing."""

import json
import logging

import pytest

from dasac_jax.data.labels import CLASS_NAMES
from dasac_jax.errors import UserError
from dasac_jax.training import workdir


def claimed(config, folder):
    run = workdir.open_run(config, folder)
    workdir.claim(run, config)
    return run


def test_the_same_configuration_may_come_back(tiny_config, tmp_path):
    claimed(tiny_config(), tmp_path / "run")
    before = (tmp_path / "run/config.json").read_text()
    claimed(tiny_config(), tmp_path / "run")
    assert (tmp_path / "run/config.json").read_text() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_opening_writes_nothing(tiny_config, tmp_path):
    workdir.open_run(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stages", "baseline"),
        ("validation_batch", 1),
        ("checkpoint_every_steps", 77),
        ("checkpoint_every_minutes", 77.0),
        ("max_minutes", 77.0),
        ("max_skipped_steps", 77),
        ("log_every_steps", 77),
        ("loader_threads", 1),
        ("data__root", "elsewhere"),
        ("data__lists", "elsewhere"),
    ],
)
def test_keys_that_change_no_result_may_differ(key, value, tiny_config, tmp_path):
    claimed(tiny_config(), tmp_path)
    (tmp_path / "lists.json").write_text("{}")
    claimed(tiny_config(**{key: value}), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored[key.replace("__", ".")] == value


@pytest.mark.parametrize("place", ["checkpoints", "best"])
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 5, "seed: 0 there, 5 here"),
        ("adapt__crop", (32, 32), "adapt.crop: [32, 64] there, [32, 32] here"),
        ("data__selection_images", 0, "data.selection_images: 4 there, 0 here"),
        ("demo__num_val", 6, "demo.num_val: 5 there, 6 here"),
        ("adapt__beta", 0.5, "adapt.beta: 0.001 there, 0.5 here"),
        # As in runs of earlier versions, nothing says which images they were.
        ("data__lists", "elsewhere", "data.lists: empty there, elsewhere here"),
    ],
)
def test_another_configuration_is_refused_saying_what_differs(
    key, value, said, place, tiny_config, tmp_path
):
    claimed(tiny_config(), tmp_path)
    (tmp_path / "adapt" / place / "5").mkdir(parents=True)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError) as caught:
        workdir.open_run(tiny_config(**{key: value}), tmp_path)
    text = str(caught.value)
    assert f"{tmp_path} belongs to another configuration ({said}): " in text
    assert "\n" not in text
    assert (tmp_path / "config.json").read_text() == before


def test_an_adaptation_that_has_saved_nothing_may_get_other_settings(tiny_config, tmp_path, caplog):
    claimed(tiny_config(), tmp_path)
    (tmp_path / "baseline" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "adapt" / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "metrics.json").write_text("of an adaptation that somebody removed")
    with caplog.at_level(logging.INFO):
        claimed(tiny_config(adapt__crop=(32, 32)), tmp_path)
    assert "settings that changed: adapt.crop: [32, 64] there, [32, 32] here" in caplog.text
    assert json.loads((tmp_path / "config.json").read_text())["adapt.crop"] == [32, 32]
    assert not (tmp_path / "metrics.json").exists()
    with pytest.raises(UserError, match=r"\(baseline\.crop: \[32, 32\] there, \[32, 48\] here\)"):
        workdir.open_run(tiny_config(baseline__crop=(32, 48), adapt__crop=(32, 32)), tmp_path)


def test_absent_keys_and_many_differences(tiny_config, tmp_path):
    claimed(tiny_config(), tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["demo.height"]
    path.write_text(json.dumps(stored | {"old": 1}))
    said = r"\(demo.height: absent there, 48 here; old: 1 there, absent here\)"
    with pytest.raises(UserError, match=said):
        workdir.open_run(tiny_config(), tmp_path)
    path.write_text(json.dumps(stored | {f"old{i}": 1 for i in range(9)}))
    with pytest.raises(UserError, match=r"old3: 1 there, absent here; …\)"):
        workdir.open_run(tiny_config(), tmp_path)


def test_a_folder_of_a_version_that_knew_fewer_keys(tiny_config, tmp_path):
    claimed(tiny_config(), tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["data.statistics"]
    path.write_text(json.dumps(stored))
    workdir.open_run(tiny_config(), tmp_path)
    with pytest.raises(UserError, match=r"\(data.statistics: gta5 there, none here\)"):
        workdir.open_run(tiny_config(data__statistics="none"), tmp_path)
    with pytest.raises(UserError, match=r"\(data.statistics: gta5 there, empty here\)"):
        workdir.open_run(tiny_config(data__statistics=""), tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[]", "[1]", "7", '{"a": 1'])
def test_a_damaged_configuration_is_refused(content, tiny_config, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json cannot be read .*choose another --workdir"):
        workdir.open_run(tiny_config(), tmp_path)


@pytest.mark.parametrize("below", ["file", "file/run", "file/run/deeper"])
def test_a_folder_that_cannot_be_written_is_refused(below, tiny_config, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    config = tiny_config()
    with pytest.raises(UserError, match=r"cannot be written .*choose another folder"):
        claimed(config, tmp_path / below)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_the_data_lie_in_the_folder_or_where_they_are_said_to(tiny_config, tmp_path):
    config = tiny_config()
    assert workdir.open_run(config, tmp_path).config.data.root == str(tmp_path / "data")
    assert config.data.root == ""
    config = tiny_config(data__root="/elsewhere")
    assert workdir.open_run(config, tmp_path).config.data.root == "/elsewhere"


def test_places(tiny_config, tmp_path):
    run = workdir.open_run(tiny_config(), tmp_path)
    places = run.newest("adapt"), run.best("adapt"), run.newest("baseline"), run.weights_file
    assert len(set(places)) == 4
    assert all(place.is_relative_to(tmp_path) for place in places)
    facts = run.network()
    assert {key: facts[key] for key in ("arch", "dtype", "num_classes")} == {
        "arch": "deeplabv2_demo", "dtype": "float32", "num_classes": 19,
    }  # fmt: skip
    assert facts["class_names"] == list(CLASS_NAMES) and facts["palette"][0] == [128, 64, 128]
    assert json.loads(json.dumps(facts)) == facts


def test_the_stages_after_the_baseline_need_it(tiny_config, tmp_path):
    for stages in ("weights", "weights,adapt", "adapt"):
        with pytest.raises(UserError) as caught:
            workdir.open_run(tiny_config(stages=stages), tmp_path)
        first = stages.split(",")[0]
        assert f"{tmp_path}/baseline/checkpoints: the baseline that stage {first}" in str(
            caught.value
        )
    (tmp_path / "baseline/checkpoints/3").mkdir(parents=True)
    workdir.open_run(tiny_config(stages="adapt"), tmp_path)


def test_given_weights_have_to_be_there(tiny_config, tmp_path):
    config = tiny_config(init=str(tmp_path / "weights"), init_from="a download", stages="adapt")
    with pytest.raises(UserError) as caught:
        workdir.open_run(config, tmp_path / "run")
    lines = str(caught.value).splitlines()
    assert lines[1:] == [
        f"  {tmp_path}/weights: the checkpoint to start from, made of a download",
    ]
    (tmp_path / "weights").mkdir()
    workdir.open_run(config, tmp_path / "run")


def test_a_run_that_has_begun_needs_no_given_weights(tiny_config, tmp_path):
    (tmp_path / "baseline/checkpoints/3").mkdir(parents=True)
    workdir.open_run(tiny_config(init=str(tmp_path / "weights")), tmp_path)


def test_the_demo_is_rendered_and_its_labels_prepared_once(tiny_config, tmp_path):
    run = workdir.open_run(tiny_config(demo__num_source=1, demo__num_train=1), tmp_path)
    workdir.make_demo(run)
    for role, count in (("source_train", 1), ("target_train", 1), ("val", 5)):
        assert len(run.open(role)) == count
    item = run.open("val")[0]
    assert item["image"].shape == (48, 96, 3) and set(item["label"].ravel()) <= {*range(19), 255}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    workdir.make_demo(run)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}


def test_only_recipes_that_ask_for_a_demo_get_one(tiny_config, tmp_path):
    config = tiny_config(data__root=str(tmp_path / "data"))
    with config.unlocked():
        del config.demo
    with pytest.raises(UserError, match="missing:") as caught:
        workdir.open_run(config, tmp_path / "run")
    assert f"{tmp_path}/data/game/images" in str(caught.value)
    workdir.make_demo(workdir.Run(config, tmp_path / "run"))
    assert not list(tmp_path.iterdir())
