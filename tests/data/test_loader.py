import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data import loader, sampling
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
from dasac_jax.runtime import data_parallel

ROOT = Path(__file__).parents[2]
SIZE, TARGET_SIZE = (4, 6), (5, 8)


def make_source(root, name, count, size, labelled):
    """PNG files whose pixels all hold the image's number."""
    pairs = []
    for i in range(count):
        Image.new("RGB", size[::-1], (i, i, i)).save(root / f"{name}{i}.png")
        Image.new("L", size[::-1], i % 19).save(root / f"{name}{i}_label.png")
        pairs.append((f"{name}{i}.png", f"{name}{i}_label.png" if labelled else None))
    return PairSource(str(root), tuple(pairs), size, name)


@pytest.fixture
def pair(tmp_path):
    return (
        make_source(tmp_path, "game", 11, SIZE, True),
        make_source(tmp_path, "street", 7, TARGET_SIZE, False),
    )


def layout(source_batch, target_batch, devices=1, process=0):
    """Of one device a process."""
    return data_parallel.layout(
        "baseline", source_batch, target_batch, devices=devices, local_devices=1, process=process
    )


def uniform(target):
    return sampling.target_sampler(len(target), None, 19)


def read(pair, rows=None, sampler=None, **changes):
    settings = {"seed": 3, "first_step": 0, "num_steps": 7, "num_threads": 3} | changes
    rows, sampler = rows or layout(4, 2), sampler or uniform(pair[1])
    return list(loader.batches(*pair, rows, sampler, **settings))


def numbers(images):
    return images[:, 0, 0, 0].tolist()


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_have_the_documented_arrays(pair):
    batch = read(pair, num_steps=1)[0]
    found = {k: (v.shape, v.dtype.name) for k, v in batch.items() if k != "names"}
    assert found == {
        "source_image": ((4, 4, 6, 3), "uint8"),
        "source_label": ((4, 4, 6), "uint8"),
        "source_item": ((4,), "int32"),
        "target_image": ((2, 5, 8, 3), "uint8"),
        "target_item": ((2,), "int32"),
    }
    shown = numbers(batch["source_image"])
    assert batch["source_label"][:, 1, 2].tolist() == shown
    shown = [f"game{i}.png" for i in shown]
    shown += [f"street{i}.png" for i in numbers(batch["target_image"])]
    assert batch["names"] == shown


def test_rows_follow_the_order_of_their_epoch(pair):
    weights = sampling.importance_weights(np.eye(7)[:, :3])
    sampler = sampling.target_sampler(7, weights, 3, (1,))
    found = read(pair, sampler=sampler)
    for step, batch in enumerate(found):
        epoch, start = step // 2, step % 2
        order = sampling.source_order(3, epoch, 11)
        assert numbers(batch["source_image"]) == order[4 * start : 4 * start + 4].tolist()
        expected = [sampler.index(3, epoch, 2 * start + row) for row in range(2)]
        assert numbers(batch["target_image"]) == expected


def test_an_epoch_shows_no_source_image_twice(pair):
    first, second, *_ = read(pair)
    assert len({*numbers(first["source_image"]), *numbers(second["source_image"])}) == 8


def test_order_depends_on_the_seed_and_not_on_the_threads(pair):
    expected = read(pair)
    assert_same(read(pair, num_threads=1, prefetch=1), expected)
    other = read(pair, seed=4)
    assert any(a["names"] != b["names"] for a, b in zip(expected, other, strict=True))


@pytest.mark.parametrize("first_step", [1, 2, 5])
def test_resuming_gives_the_rest(pair, first_step):
    found = read(pair, first_step=first_step, num_steps=7 - first_step)
    assert_same(found, read(pair)[first_step:])


def test_processes_read_their_rows_of_the_global_batch(pair):
    whole = read(pair)
    first, second = (read(pair, layout(4, 2, devices=2, process=i)) for i in range(2))
    for step, batch in enumerate(whole):
        for key in batch.keys() - {"names"}:
            joined = np.concatenate([first[step][key], second[step][key]])
            np.testing.assert_array_equal(joined, batch[key])
        assert second[step]["source_item"].tolist() == [2, 3]
        assert second[step]["target_item"].tolist() == [1]
        assert second[step]["names"] == batch["names"][2:4] + batch["names"][5:]


def test_a_corrupt_image_stops_with_its_path_and_item(pair, tmp_path):
    path = tmp_path / "game5.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read image .*game5\.png: .*item 5 of game"):
        read(pair, num_steps=20)


def test_what_does_not_fit_is_refused_before_reading(pair):
    with pytest.raises(UserError, match="11 source images do not fill a batch of 12"):
        read(pair, layout(12, 2))
    nothing = dataclasses.replace(pair[1], pairs=())
    with pytest.raises(UserError, match="no target images"):
        read((pair[0], nothing), sampler=uniform(pair[1]))


@pytest.fixture
def running(tmp_path):
    """running(first): batches of a step each, every source image once, two images a step."""
    source = make_source(tmp_path, "game", 20, SIZE, True)
    target = make_source(tmp_path, "street", 7, TARGET_SIZE, False)

    def start(first=0):
        return loader.batches(
            source, target, layout(2, 1), uniform(target),
            seed=3, first_step=first, num_steps=10 - first, num_threads=2, prefetch=1,
        )  # fmt: skip

    return start


FAULTS = {
    "image removed": ("", None, r"cannot read image .*{}\.png: .*No such file"),
    "image cut off": ("", 50, r"cannot read image .*{}\.png: "),
    "label removed": ("_label", None, r"cannot read label file .*{}_label\.png: .*No such file"),
    "label cut off": ("_label", 50, r"cannot read label file .*{}_label\.png: "),
    "label too large": ("_label", 19, r"label file .*{}_label\.png contains 19, which is no train"),
    "label 254": ("_label", 254, r"label file .*{}_label\.png contains 254, which is no train id"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_running_ends_at_its_step_and_the_run_goes_on_when_mended(
    running, tmp_path, fault
):
    expected = list(running())
    end, change, message = FAULTS[fault]
    stem = expected[6]["names"][1].removesuffix(".png")
    number = int(stem.removeprefix("game"))
    path = tmp_path / f"{stem}{end}.png"
    content = path.read_bytes()
    batches = running()
    found = [next(batches) for _ in range(2)]
    if change is None:
        path.unlink()
    elif "cut off" in fault:
        path.write_bytes(content[:change])
    else:
        Image.new("L", SIZE[::-1], change).save(path)
    with pytest.raises(UserError, match=f"{message.format(stem)}.*item {number} of game"):
        for batch in batches:
            found.append(batch)
    assert_same(found, expected[: len(found)])
    assert len(found) == 6
    path.write_bytes(content)
    assert_same(list(running(6)), expected[6:])


def test_a_file_that_never_answers_is_named(running, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "STALL_SECONDS", 0.3)
    stem = next(running())["names"][0].removesuffix(".png")
    path = tmp_path / f"{stem}.png"
    path.unlink()
    os.mkfifo(path)  # opening it waits for a writer
    place = rf"{stem}\.png \(item {stem[4:]} of game, in {tmp_path}\)"
    with pytest.raises(UserError, match=f"reading {place} takes longer than 0.3 seconds"):
        next(running())
    with pytest.raises(UserError, match="takes longer"):
        list(loader.evaluation_batches(make_again(tmp_path), 4))
    os.close(os.open(path, os.O_RDWR))  # lets the reader go


def make_again(root):
    return PairSource(str(root), tuple((f"game{i}.png", None) for i in range(20)), SIZE, "game")


_HANGING = """
import os, sys
from dasac_jax.data import loader
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
loader.STALL_SECONDS = 2  # waiting for each of the files would take longer than the test waits
pairs = tuple((f"{i}.png", None) for i in range(40))
for name, _ in pairs:
    os.mkfifo(f"{sys.argv[1]}/{name}")
try:
    list(loader.evaluation_batches(PairSource(sys.argv[1], pairs, (4, 6), "x"), 10))
except UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)
"""


def test_files_that_never_answer_do_not_keep_the_program_from_ending(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", _HANGING, tmp_path], cwd=ROOT, capture_output=True, text=True,
        timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: reading 0.png (item 0 of x, in ")


class Dying(PairSource):
    def __getitem__(self, index):
        if index == 9:
            raise self.error
        return super().__getitem__(index)


def test_a_dead_worker_is_reported_with_its_file(pair):
    source = Dying(*dataclasses.astuple(pair[0])[:4])
    Dying.error = SystemExit(3)
    with pytest.raises(UserError, match=r"reading game9\.png \(item 9 of game, .*died: SystemExit"):
        list(loader.evaluation_batches(source, 4))
    Dying.error = MemoryError()
    with pytest.raises(MemoryError) as caught:
        list(loader.evaluation_batches(source, 4))
    assert "while reading game9.png (item 9 of game" in caught.value.__notes__[0]


def test_closing_ends_the_threads(pair):
    before = set(threading.enumerate())  # those of earlier tests may end at any moment

    def ours():
        return set(threading.enumerate()) - before

    iterator = loader.batches(
        *pair, layout(4, 2), uniform(pair[1]), seed=0, first_step=0, num_steps=10**6
    )
    next(iterator)
    assert ours()
    iterator.close()
    deadline = time.monotonic() + 60
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread that is just being started cannot be joined
    assert not ours()


def test_evaluation_shows_every_image_once_in_order(pair):
    found = list(loader.evaluation_batches(pair[0], 4))
    assert [numbers(b["image"]) for b in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 10]]
    assert [b["valid"].tolist() for b in found] == [[True] * 4, [True] * 4, [True] * 3 + [False]]
    assert [b["label"][:, 0, 0].tolist() for b in found][2] == [8, 9, 10, 255]
    assert found[2]["label"].dtype == np.uint8 and found[2]["image"].shape == (4, 4, 6, 3)
    assert found[0]["names"] == [f"game{i}.png" for i in range(4)]


def test_evaluation_fills_a_batch_larger_than_the_source(pair):
    (batch,) = loader.evaluation_batches(pair[1], 16)
    assert batch["valid"].sum() == 7 and batch["image"].shape[0] == 16
    assert len(list(loader.evaluation_batches(pair[1], 7))) == 1


def test_evaluation_of_nothing_is_empty():
    assert list(loader.evaluation_batches(PairSource("", (), SIZE, "none"), 2)) == []


def test_evaluation_stops_at_unreadable_images(pair, tmp_path):
    (tmp_path / "game9.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"game9\.png.*item 9"):
        list(loader.evaluation_batches(pair[0], 4))
    with pytest.raises(UserError, match="at least 1"):
        loader.evaluation_batches(pair[0], 0)
