import importlib.util
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging
from ml_collections import ConfigDict
from PIL import Image
from tensorflow_datasets.core import shuffle

from dasac_jax.data import label_survey, loader, sampling, sources
from dasac_jax.data.preparation import tfds_builders as builders
from dasac_jax.data.preparation.build_tfds import main
from dasac_jax.data.tfds import records
from dasac_jax.errors import UserError
from dasac_jax.runtime import data_parallel

ROLES = ("source_train", "source_val", "target_train", "selection", "val")


@pytest.fixture
def stored(config, tmp_path):
    """stored(set, flag, …): builds a set, and gives the configuration that reads it."""

    def build(name, *flags):
        store = tmp_path / "tfds"
        assert main([name, "--root", config.root, "--output", str(store), *flags]) == 0
        return ConfigDict(config.to_dict() | {"tfds": str(store)})

    return build


@pytest.fixture
def both(stored):
    """The configuration of both sets, stored as they are."""
    stored("gta5")
    return stored("cityscapes")


def assert_same(found, expected):
    assert found.names == expected.names and len(found) == len(expected) > 0
    assert found.pairs == expected.pairs and found.size == expected.size
    for a, b in zip(found, expected, strict=True):
        assert a["name"] == b["name"]
        for key in ("image", "label"):
            assert a[key].dtype == b[key].dtype == np.uint8
            np.testing.assert_array_equal(a[key], b[key])


def without_folders(config):
    """The same configuration with no file in the data root."""
    return ConfigDict(config.to_dict() | {"root": "/nowhere"})


@pytest.mark.parametrize("role", ROLES)
def test_stored_as_is_samples_and_order_are_those_of_the_folders(config, both, role):
    found, expected = (sources.open_source(x, role) for x in (without_folders(both), config))
    assert_same(found, expected)
    assert found.records is not None
    if role != "target_train":  # whose labels are not opened
        assert str(label_survey.survey(found)) == str(label_survey.survey(expected))


@pytest.mark.parametrize("role", ["target_train", "selection"])
def test_a_cache_at_the_target_s_size_is_exact(config, stored, role):
    data = without_folders(stored("cityscapes", "--size", "6x11"))
    found = sources.open_source(data, role)
    assert found.records.size == (6, 11)
    with Image.open(found.records.open(found.names[0])) as image:
        assert image.size == (11, 6)
    assert_same(found, sources.open_source(config, role))


def test_a_cache_of_a_source_is_exact(config, stored):
    data = without_folders(stored("gta5", "--size", "12x20", "--jobs", "3"))
    assert_same(
        sources.open_source(data, "source_train"), sources.open_source(config, "source_train")
    )


def test_a_set_of_another_size_is_not_resized_twice(config, stored):
    data = stored("cityscapes", "--size", "5x10")
    assert sources.open_source(data, "target_train").records is None
    stored("cityscapes")
    assert sources.open_source(data, "target_train").records.size is None
    stored("cityscapes", "--size", "6x11")
    assert sources.open_source(data, "target_train").records.size == (6, 11)


def test_validation_images_keep_their_own_size(config, stored):
    data = stored("cityscapes", "--size", "6x11")
    assert sources.open_source(data, "val").records is None
    stored("cityscapes", "--splits", "val")
    assert_same(sources.open_source(data, "val"), sources.open_source(config, "val"))
    assert sources.open_source(data, "val").records.size is None


def test_lists_choose_and_order_what_is_stored(config, both, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    numbers = (7, 2, 9)
    lines = [f"game/images/{i:05d}.png game/labels_cs/{i:05d}.png" for i in numbers]
    (lists / "train_game_9K.txt").write_text("\n".join(lines))
    config.lists = both.lists = str(lists)
    found = sources.open_source(without_folders(both), "source_train")
    assert_same(found, sources.open_source(config, "source_train"))
    assert found.names[0] == "game/images/00007.png"
    (lists / "train_game_9K.txt").write_text("game/images/1.png game/labels_cs/1.png")
    with pytest.raises(UserError, match=r"2 files of source_train .* first: game/images/1\.png"):
        sources.open_source(both, "source_train")


def test_batches_read_by_threads_are_those_of_the_folders(config, both):
    layout = data_parallel.layout("baseline", 3, 2, devices=1, local_devices=1, process=0)
    settings = {"seed": 1, "first_step": 0, "num_steps": 4, "num_threads": 8}
    runs = []
    for opened in (config, both):
        source, target = (sources.open_source(opened, role) for role in ROLES[::2][:2])
        sampler = sampling.target_sampler(len(target), None, 19)
        runs.append(list(loader.batches(source, target, layout, sampler, **settings)))
    for expected, found in zip(*runs, strict=True):
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values)


def test_many_threads_may_read_one_source(both):
    source = sources.open_source(both, "source_train")
    expected = [source[i]["image"] for i in range(len(source))]
    wrong = []

    def read(start):
        for i in range(40):
            index = (start + i) % len(source)
            if not np.array_equal(source[index]["image"], expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_set_of_many_files_is_written_piece_by_piece(config, stored, monkeypatch):
    monkeypatch.setattr(builders, "_SHARD", 4)
    # What TFDS keeps in memory before it asks for TensorFlow: nothing must go that way.
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    data = stored("gta5")
    assert len(list(Path(data.tfds).glob("prepared_gta5/*/*/*array_record*"))) == 3
    assert_same(
        sources.open_source(data, "source_train"), sources.open_source(config, "source_train")
    )


def test_a_target_without_labels_trains_and_does_not_select(config, stored):
    shutil.rmtree(Path(config.root, "cityscapes/gtFine2/train"))
    data = without_folders(stored("cityscapes"))
    found = sources.open_source(data, "target_train")
    assert_same(found, sources.open_source(config, "target_train"))
    assert (found[0]["label"] == 255).all()
    with pytest.raises(UserError, match="4 files of selection are not in"):
        sources.open_source(data, "selection")


def test_target_labels_are_not_opened_for_training(both, monkeypatch):
    found = sources.open_source(both, "target_train")
    opened = []
    monkeypatch.setattr(
        records.Records, "open", lambda self, path: opened.append(path) or Path(both.root, path)
    )
    assert (found[2]["label"] == 255).all()
    assert opened == [found.names[2]]


def test_stored_files_need_no_folders_and_others_do(both, config):
    nowhere = without_folders(both)
    assert sources.missing(nowhere) == []
    shutil.rmtree(Path(both.tfds, "prepared_gta5"))
    assert [line.split(":")[0] for line in sources.missing(nowhere)] == [
        "/nowhere/game/images",
        "/nowhere/game/labels_cs",
    ]
    assert_same(sources.open_source(both, "source_val"), sources.open_source(config, "source_val"))


@pytest.mark.parametrize("damage", ["cut off", "overwritten", "removed"])
def test_a_damaged_file_names_itself_and_the_item(both, damage):
    (path,) = Path(both.tfds).glob("prepared_gta5/*/*/*.array_record*")
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        half = len(content) // 3
        path.write_bytes(content[:half] + (b"\0" * half if damage == "overwritten" else b""))
    with pytest.raises(UserError, match=r"prepared_gta5/full/1\.0\.0"):
        list(sources.open_source(both, "source_train"))


def test_a_file_that_vanishes_while_it_is_read_names_the_item(both):
    source = sources.open_source(both, "source_train")
    (path,) = Path(both.tfds).glob("prepared_gta5/*/*/*.array_record*")
    path.unlink()
    with pytest.raises(UserError, match=r"game/images/00001\.png \(record 0 of .*item 0 of source"):
        source[0]


def test_metadata_of_another_length_is_refused(both):
    (path,) = Path(both.tfds).glob("prepared_gta5/*/*/metadata.json")
    text = path.read_text()
    path.write_text(text.replace('["game/images/00001.png", "game/labels_cs/00001.png"], ', ""))
    with pytest.raises(UserError, match="10 records of train, but lists 9"):
        sources.open_source(both, "source_train")
    path.write_text(text[:50])
    with pytest.raises(UserError, match=r"cannot read the data set .*build it anew"):
        sources.open_source(both, "source_train")


def test_a_folder_without_any_set_is_refused(config, tmp_path):
    config.tfds = str(tmp_path / "none")
    for use in (lambda: sources.open_source(config, "val"), lambda: sources.missing(config)):
        with pytest.raises(UserError, match=r"data\.tfds is .*none.*build_tfds\.py"):
            use()


@pytest.fixture
def verbose_log():
    """absl's log at the level that programs begin with."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield
    logging.set_verbosity(before)


def test_the_log_says_once_where_files_are_read(both, caplog, verbose_log):
    shutil.rmtree(Path(both.tfds, "prepared_gta5"))
    records._log_once.cache_clear()
    with caplog.at_level("INFO"):
        assert sources.missing(both) == []
        assert not caplog.messages
        for _ in range(2):
            for role in ("source_train", "val"):
                sources.open_source(both, role)
    place = f"{both.tfds}/prepared_cityscapes/full/1.0.0"
    assert caplog.messages == ["source_train: read from the folders", f"val: read from {place}"]


def test_other_programs_read_a_set_as_they_read_any(config, stored):
    data = stored("cityscapes", "--splits", "val,test")
    folder = Path(data.tfds, "prepared_cityscapes/full/1.0.0")
    found = tfds.builder_from_directory(folder).as_data_source()
    expected = sources.open_source(config, "val")
    assert [len(found[split]) for split in ("val", "test")] == [3, 3]
    for record, name, (image, label) in zip(
        found["val"], expected.names, expected.pairs, strict=True
    ):
        assert record["name"].decode() == name
        with Image.open(Path(config.root, image)) as a, Image.open(Path(config.root, label)) as b:
            if a.mode == "RGB":
                np.testing.assert_array_equal(record["image"], np.array(a))
            np.testing.assert_array_equal(record["label"][..., 0], np.array(b))
    record = found["test"][2]
    assert record["name"].decode().startswith("cityscapes/leftImg8bit/test/bern/")
    assert record["label"].shape == (*record["image"].shape[:2], 1)
    assert (record["label"] == 255).all()


def test_data_of_one_s_own_are_refused(both):
    both.source = "custom"
    with pytest.raises(UserError, match=r"data\.tfds is for .*leave it empty"):
        records.open_records(both, "source_train")


def test_a_missing_package_is_named(monkeypatch):
    find = importlib.util.find_spec

    def without(name, *rest):
        if name.partition(".")[0] == "importlib_resources":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return find(name, *rest)

    monkeypatch.delitem(__import__("sys").modules, "importlib_resources", raising=False)
    monkeypatch.setattr("builtins.__import__", _importing(without))
    with pytest.raises(UserError, match=r"package importlib_resources: pip install .*\[tfds\]"):
        records.load_tfds()


def _importing(find):
    real = __import__

    def imports(name, *rest, **options):
        find(name)
        return real(name, *rest, **options)

    return imports
