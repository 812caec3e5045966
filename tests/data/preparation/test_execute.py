import dataclasses
import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasac_jax.data.preparation.execute import carry_out, dry_run, in_threads
from dasac_jax.data.preparation.plan import plan_gta5
from dasac_jax.data.preparation.train_ids import CannotWriteError


def png(path, size, value=0, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value)
    if mode == "P":
        image.putpalette(list(range(0, 102)))  # 34 colours, as GTA5's labels have
    image.save(path)


@pytest.fixture
def source(tmp_path):
    """Three pairs of GTA5, labels of road."""
    for number in (1, 2, 3):
        png(tmp_path / f"gta/images/{number:05d}.png", (8, 4), (number, 0, 0), "RGB")
        png(tmp_path / f"gta/labels/{number:05d}.png", (8, 4), 7, "P")
    return tmp_path / "gta"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def contents(folder):
    """Bytes, or where a link leads, of everything below a folder."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in folder.rglob("*")
        if not p.is_dir()
    }


def label(root, number):
    with Image.open(root / f"game/labels_cs/{number:05d}.png") as image:
        assert image.mode == "L"
        return np.array(image)


def test_images_are_linked_and_labels_written(source, root):
    before, seen = contents(source), []
    summary = carry_out(plan_gta5(source), root, jobs=2, update=seen.append)
    assert (summary.images, summary.labels) == ({"linked": 3}, {"written": 3})
    assert not summary.errors and not summary.resized
    assert seen == [1, 2, 3]
    place = root / "game/images/00002.png"
    assert place.is_symlink() and place.samefile(source / "images/00002.png")
    assert os.path.isabs(os.readlink(place))
    np.testing.assert_array_equal(label(root, 2), np.zeros((4, 8)))
    assert contents(source) == before


def test_links_lead_to_the_originals_from_anywhere(source, root, monkeypatch):
    monkeypatch.chdir(source.parent)
    assert carry_out(plan_gta5(Path("gta")), Path("data")).images == {"linked": 3}
    monkeypatch.chdir("/")
    assert (root / "game/images/00001.png").samefile(source / "images/00001.png")
    assert carry_out(plan_gta5(source), root).images == {"kept": 3}


def test_images_are_copied(source, root):
    assert carry_out(plan_gta5(source), root, copy=True).images == {"copied": 3}
    place = root / "game/images/00002.png"
    assert not place.is_symlink()
    assert place.read_bytes() == (source / "images/00002.png").read_bytes()
    assert carry_out(plan_gta5(source), root, copy=True).images == {"kept": 3}


def test_links_become_copies_and_copies_stay(source, root):
    carry_out(plan_gta5(source), root)
    assert carry_out(plan_gta5(source), root, copy=True).images == {"copied": 3}
    assert not (root / "game/images/00001.png").is_symlink()
    assert carry_out(plan_gta5(source), root).images == {"kept": 3}


def test_what_is_finished_is_kept_and_newer_labels_are_redone(source, root):
    carry_out(plan_gta5(source), root)
    png(source / "labels/00002.png", (8, 4), 8, "P")
    later = (root / "game/labels_cs/00002.png").stat().st_mtime + 10
    os.utime(source / "labels/00002.png", (later, later))
    (root / "game/labels_cs/00003.png").unlink()
    kept = (root / "game/labels_cs/00001.png").stat().st_mtime_ns
    summary = carry_out(plan_gta5(source), root)
    assert (summary.images, summary.labels) == ({"kept": 3}, {"written": 2, "kept": 1})
    assert (label(root, 2) == 1).all() and (label(root, 3) == 0).all()
    assert (root / "game/labels_cs/00001.png").stat().st_mtime_ns == kept


def test_originals_that_moved_are_linked_anew(source, root):
    carry_out(plan_gta5(source), root)
    moved = source.rename(source.with_name("moved"))
    assert carry_out(plan_gta5(moved), root).images == {"linked": 3}
    assert (root / "game/images/00001.png").samefile(moved / "images/00001.png")


def test_originals_that_lie_in_their_places_stay(source, root):
    root.mkdir()
    source.rename(root / "game")
    before = contents(root)
    for copy in (False, True):
        summary = carry_out(plan_gta5(root / "game"), root, copy=copy)
        assert summary.images == {"kept": 3}
    assert before.items() <= contents(root).items()


def test_another_image_in_the_place_is_not_replaced(source, root):
    png(root / "game/images/00002.png", (3, 3))
    before = contents(root)
    for summary in (dry_run(plan_gta5(source), root), carry_out(plan_gta5(source), root)):
        (error,) = summary.errors
        assert "game/images/00002.png is there already and is no copy of" in error
        assert summary.images == {"linked": 2}
    assert before.items() <= contents(root).items()


def test_unfinished_files_are_removed(source, root):
    for place in ("images/.00001.png.part", "labels_cs/.00009.png.part"):
        (root / "game" / place).parent.mkdir(parents=True, exist_ok=True)
        (root / "game" / place).write_bytes(b"cut off")
    carry_out(plan_gta5(source), root)
    assert not [p for p in root.rglob("*") if p.name.startswith(".")]


def test_a_dry_run_writes_nothing(source, root):
    summary = dry_run(plan_gta5(source), root)
    assert (summary.images, summary.labels) == ({"linked": 3}, {"written": 3})
    assert dry_run(plan_gta5(source), root, copy=True).images == {"copied": 3}
    assert not root.exists()
    carry_out(plan_gta5(source), root)
    before = contents(root)
    assert dry_run(plan_gta5(source), root).labels == {"kept": 3}
    assert contents(root) == before


def test_gta5_labels_of_another_size_are_brought_to_that_of_training(source, root):
    ids = np.arange(5 * 9, dtype=np.uint8).reshape(5, 9) % 34
    Image.fromarray(ids).save(source / "labels/00002.png")
    summary = carry_out(plan_gta5(source), root)
    assert summary.resized == ["00002 (image 8×4, label 9×5)"]
    found = label(root, 2)
    assert found.shape == (1052, 1914)
    # Nearest: every pixel has the value of the one that its centre falls in.
    rows = ((np.arange(1052) + 0.5) * 5 / 1052).astype(int)
    columns = ((np.arange(1914) + 0.5) * 9 / 1914).astype(int)
    known = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
    train_ids = np.vectorize(lambda i: known.get(i, 255))(ids)
    np.testing.assert_array_equal(found, train_ids[rows][:, columns])


def test_sizes_that_differ_are_an_error_where_the_set_has_none_such(source, root):
    png(source / "labels/00002.png", (9, 6), 7, "P")
    plan = dataclasses.replace(plan_gta5(source), label_size=None)
    (error,) = carry_out(plan, root).errors
    assert "labels/00002.png does not fit" in error and "image 8×4, label 9×6" in error
    assert not (root / "game/labels_cs/00002.png").exists()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-30])


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut_off, "cannot read label file"),
        (lambda path: path.write_bytes(b""), "cannot read label file"),
        (lambda path: png(path, (8, 4), (70, 70, 70), "RGB"), "has pixel format RGB"),
        (dangling, "cannot read"),
    ],
    ids=["cut off", "empty", "colours", "dangling link"],
)
def test_bad_labels_are_named_and_the_others_prepared(source, root, spoil, told):
    spoil(source / "labels/00002.png")
    summary = carry_out(plan_gta5(source), root, jobs=2)
    (error,) = summary.errors
    assert told in error and "labels/00002.png" in error
    assert (summary.images, summary.labels) == ({"linked": 2}, {"written": 2})
    assert sorted(contents(root)) == [
        f"game/{kind}/{number}.png"
        for kind in ("images", "labels_cs")
        for number in ("00001", "00003")
    ]


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no image"), dangling])
def test_bad_images_are_named(source, root, spoil):
    spoil(source / "images/00002.png")
    (error,) = carry_out(plan_gta5(source), root).errors
    assert "cannot read" in error and "images/00002.png" in error
    assert not list(root.rglob("00002.png"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("copy", [False, True])
def test_what_cannot_be_written_stops_the_preparation(source, root, monkeypatch, code, copy):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CannotWriteError, match=rf"0000\d\.png: {os.strerror(code)}; mend this"):
        carry_out(plan_gta5(source), root, copy=copy, jobs=2)
    assert not contents(root)
    monkeypatch.undo()
    assert carry_out(plan_gta5(source), root).labels == {"written": 3}


def test_a_disk_that_fills_while_a_label_is_written(source, root, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda _, path, **__: fill(path))

    def fill(path):
        path.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CannotWriteError, match=r"labels_cs/00001\.png: No space left on device"):
        carry_out(plan_gta5(source), root)
    assert not contents(root)


def test_a_file_where_a_folder_should_be(source, root):
    root.mkdir()
    (root / "game").write_text("")
    with pytest.raises(CannotWriteError, match=r"cannot write .*game/labels_cs/00001\.png"):
        carry_out(plan_gta5(source), root)


def test_an_interrupted_preparation_goes_on_where_it_stopped(source, root):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(plan_gta5(source), root, update=stop)
    kept = len(list((root / "game/labels_cs").iterdir()))
    assert kept >= 2
    assert carry_out(plan_gta5(source), root).labels == {"kept": kept} | (
        {"written": 3 - kept} if kept < 3 else {}
    )


def test_an_interruption_drops_what_has_not_begun():
    begun, first_done = [], threading.Event()

    def work(item):
        begun.append(item)
        if item > 1:
            first_done.wait(5)  # until the interruption
        return item

    def stop(done):
        threading.Timer(0.2, first_done.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(1000), 2, stop)
    assert len(begun) < 10


def test_threads_keep_the_order():
    assert in_threads(lambda item: item * item, range(50), 4) == [i * i for i in range(50)]
