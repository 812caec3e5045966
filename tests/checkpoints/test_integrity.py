"""Damage to any file of a checkpoint is noticed and told, and the checkpoint before is used."""

from __future__ import annotations

import logging
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.checkpoints import integrity, store
from dasac_jax.errors import UserError

FLIPS = int(os.environ.get("DASAC_BIT_FLIPS", "100"))


@pytest.fixture
def folder(pair, tmp_path) -> Path:
    """Steps 1 and 2, to be damaged."""
    return shutil.copytree(pair, tmp_path / "pair")


def _files(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def _flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


_DAMAGES = {
    "deleted": Path.unlink,
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "first bit flipped": lambda path: _flip(path, 0),
    "last bit flipped": lambda path: _flip(path, 8 * path.stat().st_size - 1),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_damage_to_any_file_is_told_and_the_step_before_is_used(folder, caplog, damage):
    newest = folder / "2"
    found = {path.relative_to(newest).as_posix() for path in _files(newest)}
    assert found > {"files.json", "metadata/metadata", "state/_METADATA", "state/manifest.ocdbt"}
    for path in _files(newest):
        name, before = path.relative_to(newest).as_posix(), path.read_bytes()
        _DAMAGES[damage](path)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="dasac_jax"):
            assert store.read(folder)[1]["epoch"] == 1, name
        assert f"checkpoint {newest} is damaged: {name} " in caplog.text, name
        if name == "files.json" or name.startswith("metadata/"):
            assert store.facts(folder)["epoch"] == 1, name
        path.write_bytes(before)
    assert store.read(folder)[1]["epoch"] == 2


def test_every_flipped_bit_is_found(folder):
    """DASAC_BIT_FLIPS=1000 tries more of them."""
    rng, files = random.Random(0), _files(folder / "2")
    bits = [8 * path.stat().st_size for path in files]
    for number in range(FLIPS):
        # Every file in its turn, and of all files the more bits the more often.
        path = files[number // 2 % len(files)] if number % 2 else rng.choices(files, bits)[0]
        bit = rng.randrange(8 * path.stat().st_size)
        _flip(path, bit)
        with pytest.raises(UserError, match=r"/2 is damaged: .*; give another step"):
            store.read(folder / "2")
        _flip(path, bit)
    assert store.read(folder / "2")[1]["epoch"] == 2


def test_swapped_files_are_found(folder):
    ours, theirs = (
        [path for path in _files(folder / step) if path.stat().st_size > 9] for step in "12"
    )
    for path, other in zip(ours, theirs, strict=False):
        before = other.read_bytes()
        if path.read_bytes() != before:
            shutil.copy(path, other)
            assert store.read(folder)[1]["epoch"] == 1, other
            other.write_bytes(before)


def test_the_array_that_is_hit_is_named(folder):
    largest = max(_files(folder / "2" / "state"), key=lambda path: path.stat().st_size)
    _flip(largest, 4 * largest.stat().st_size)
    message = (
        rf"damaged: state/.*{largest.name} holds other bytes than were written; "
        r"array (opt_state/[\w/]*|params)/head/kernel(, [\w/]*)* is spoilt"
    )
    with pytest.raises(UserError, match=message):
        store.read(folder / "2")
    (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
    message = r"array params/\S*, params/\S*, params/\S* and \d more is spoilt"
    with pytest.raises(UserError, match=message):
        store.read(folder / "2")


def test_a_folder_without_files_is_damaged(folder, caplog):
    shutil.rmtree(folder / "2")
    (folder / "2").mkdir()
    assert store.read(folder)[1]["epoch"] == 1
    assert f"{folder / '2'} is damaged" in caplog.text


def test_damage_to_all_is_an_error(folder):
    for step in "12":
        (folder / step / "files.json").write_bytes(b"")
    for read in (store.facts, store.read):
        with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
            read(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": {}, "crc32": 1}', "nothing", "\xff"])
def test_sums_that_are_none(tmp_path, content):
    (tmp_path / "files.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"files\.json is not as it was written"):
        integrity.check(tmp_path)


class TestEarlierFormats:
    """Checkpoints that versions before this one have written, by one process and by two."""

    @pytest.fixture
    def old(self, tmp_path) -> Path:
        shutil.unpack_archive(Path(__file__).with_name("formats.zip"), tmp_path)
        return tmp_path

    @pytest.mark.parametrize("number", "123")
    def test_are_read(self, old, number):
        arrays, facts = store.read(old / number)
        kernel = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 + 5
        np.testing.assert_array_equal(arrays["params"]["head"]["kernel"], kernel)
        bias = np.array([-0.0, np.inf, 1e-45], np.float32)
        assert arrays["params"]["head"]["bias"].tobytes() == bias.tobytes()
        np.testing.assert_array_equal(arrays["class_prior"], np.full(3, 0.25, np.float32))
        assert arrays["step"] == store.latest_step(old / number) == 5
        assert facts == {"arch": "small", "epoch": 5, "version": "0.1.0"}
        assert store.facts(old / number) == facts

    def test_changed_arrays_are_noticed_without_sums_of_files(self, old):
        metadata = old / "1" / "5" / "metadata" / "metadata"
        metadata.write_text(metadata.read_text().replace('"checksum": ', '"checksum": 1'))
        with pytest.raises(UserError, match="/5 is damaged: the arrays are not those"):
            store.read(old / "1" / "5")

    @pytest.mark.parametrize("name", ["2/5/state/manifest.ocdbt", "3/5/process_1/state/_METADATA"])
    def test_changed_files_are_noticed(self, old, name):
        _flip(old / name, 20)
        with pytest.raises(UserError, match=f"/5 is damaged: {name[4:]} holds other bytes"):
            store.read(old / name[:3])

    def test_go_on(self, old, small):
        """A step is added beside one of format 3."""
        small.write(old / "3", 6)
        assert small.names(old / "3") == ["5", "6"]
        assert store.facts(old / "3" / "5")["epoch"] == 5


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
