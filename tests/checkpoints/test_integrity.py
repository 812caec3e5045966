"""Damage to any file of a checkpoint is noticed and told, and the checkpoint before is used."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from dasac_jax import __version__
from dasac_jax.checkpoints import integrity, store
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState

_FACTS = {"arch": "deeplabv2_demo", "num_classes": 19, "epoch": 4, "best_score": 0.4375}


def _state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    student = {
        name: {f"layer{i}": {"x": rng.random((3, 50), np.float32)} for i in range(3)}
        for name in ("params", "batch_stats")
    }
    return TrainState(
        **student,
        teacher=student,
        class_prior=rng.random(19, np.float32),
        opt_state=(student["params"],),
        step=np.int32(step),
        seed=np.uint32(1),
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder with steps 1 and 2."""
    folder = tmp_path_factory.mktemp("pair")
    manager = store.open_manager(folder)
    for step in (1, 2):
        store.save(manager, _state(step), metadata={**_FACTS, "epoch": step})
    store.finish(manager)
    return folder


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


_DAMAGES = {
    "deleted": Path.unlink,
    "cut by a byte": _cut,
    "emptied": _empty,
    "first byte flipped": lambda path: _flip(path, 0),
    "a byte in the middle flipped": lambda path: _flip(path, 0.5),
    "last byte flipped": lambda path: _flip(path, 1),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_damage_to_any_file_is_told_and_the_step_before_is_used(pair, tmp_path, caplog, damage):
    folder = shutil.copytree(pair, tmp_path / "pair")
    newest = folder / "2"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    names = {path.relative_to(newest).as_posix() for path in files}
    assert names > {"files.json", "metadata/metadata", "state/_METADATA", "state/manifest.ocdbt"}
    for path in files:
        name = path.relative_to(newest).as_posix()
        before = path.read_bytes()
        _DAMAGES[damage](path)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="dasac_jax"):
            state, facts = store.restore(folder, _state(0))
        assert (state.step, facts["epoch"]) == (1, 1), name
        assert f"checkpoint {newest} is damaged: {name} " in caplog.text, name
        if name == "files.json" or name.startswith("metadata/"):
            assert store.facts(folder)["epoch"] == 1, name
        path.write_bytes(before)
    assert store.restore(folder, _state(0))[0].step == 2


def test_a_folder_without_files_is_damaged(pair, tmp_path, caplog):
    folder = shutil.copytree(pair, tmp_path / "pair")
    shutil.rmtree(folder / "2")
    (folder / "2").mkdir()
    assert store.restore(folder, _state(0))[0].step == 1
    assert f"{folder / '2'} is damaged" in caplog.text


def test_damage_to_all_is_an_error(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "pair")
    for step in ("1", "2"):
        _empty(folder / step / "files.json")
    for read in (store.facts, store.read):
        with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
            read(folder)


class TestFormat1:
    """Checkpoints of version 0.1.0 before there were seals."""

    @pytest.fixture
    def folder(self, pair, tmp_path) -> Path:
        folder = shutil.copytree(pair, tmp_path / "old")
        for step in ("1", "2"):
            (folder / step / "files.json").unlink()
            path = folder / step / "metadata" / "metadata"
            metadata = json.loads(path.read_text())
            assert metadata.pop("format") == 3
            path.write_text(json.dumps(metadata))
        return folder

    def test_is_read(self, folder):
        state, facts = store.restore(folder, _state(0))
        np.testing.assert_array_equal(state.class_prior, _state(2).class_prior)
        assert facts == {**_FACTS, "epoch": 2, "version": __version__}
        assert store.facts(folder) == facts

    def test_changed_arrays_are_noticed(self, folder, caplog):
        metadata = folder / "2" / "metadata" / "metadata"
        text = metadata.read_text()
        metadata.write_text(text.replace('"checksum": ', '"checksum": 1'))
        assert store.restore(folder, _state(0))[0].step == 1
        assert f"{folder / '2'} is damaged: the arrays are not those" in caplog.text


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": {}, "crc32": 1}', "nothing", "\xff"])
def test_a_seal_that_is_none(tmp_path, content):
    (tmp_path / "files.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"files\.json is not as it was written"):
        integrity.check(tmp_path)


def test_the_checksum_tells_arrays_apart():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(0)}
    same = {"b": np.float32(0), "a": np.asfortranarray(arrays["a"])}
    assert integrity.checksum(arrays) == integrity.checksum(same)
    for other in (
        arrays | {"b": np.float32(-0.0)},
        arrays | {"b": np.int32(0)},
        arrays | {"a": arrays["a"].reshape(3, 2)},
        {"a": arrays["a"], "c": arrays["b"]},
    ):
        assert integrity.checksum(arrays) != integrity.checksum(other)
