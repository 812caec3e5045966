"""scripts/prepare_data.py from the command line, on small files in the sets' own formats."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.config import base
from dasac_jax.data import labels, sources
from dasac_jax.data.preparation.prepare_data import main

SCRIPT = Path(__file__).parents[3] / "scripts" / "prepare_data.py"


def save(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if palette:
        image.putpalette([value for entry in labels.CLASSES for value in entry.color] * 2)
    image.save(path)


def save_sixteen_bits(path, samples):
    """(h, w, 3) uint16 -> a PNG whose rows take the difference to the one above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = samples.astype(">u2").view(np.uint8).reshape(len(samples), -1)
    rows = np.diff(raw, axis=0, prepend=np.zeros_like(raw[:1]))
    stream = zlib.compress(b"".join(b"\x02" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", samples.shape[1], len(samples), 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
        )
    )


IDS = np.arange(34, dtype=np.uint8).repeat(2).reshape(2, 34)
PHOTO = np.random.default_rng(0).integers(0, 256, (2, 34, 3))


def unpack_gta5(folder):
    for number in (1, 2):
        save(folder / f"images/{number:05d}.png", PHOTO)
        save(folder / f"labels/{number:05d}.png", IDS, palette=True)
    return folder


def unpack_cityscapes(folder):
    for place in ("train/ulm/ulm_000000_000019", "val/bonn/bonn_000000_000019"):
        save(folder / f"leftImg8bit/{place}_leftImg8bit.png", PHOTO)
        save(folder / f"gtFine/{place}_gtFine_labelIds.png", IDS)
    save(folder / "leftImg8bit/test/mainz/mainz_000000_000019_leftImg8bit.png", PHOTO)
    return folder


def unpack_synthia(folder):
    rng = np.random.default_rng(1)
    for number in (0, 1):
        samples = np.zeros((3, 23, 3), np.uint16)
        samples[..., 0] = np.arange(23)
        samples[..., 1] = rng.integers(0, 65536, (3, 23))
        save(folder / f"RAND_CITYSCAPES/RGB/{number:07d}.png", PHOTO[:1].repeat(3, 0)[:, :23])
        save_sixteen_bits(folder / f"RAND_CITYSCAPES/GT/LABELS/{number:07d}.png", samples)
    return folder


UNPACK = {"cityscapes": unpack_cityscapes, "gta5": unpack_gta5, "synthia": unpack_synthia}


@pytest.fixture
def run(tmp_path):
    """Runs the command with `tmp_path`/data as root: (exit code, standard output)."""

    def call(*arguments):
        file = io.StringIO()
        arguments = [str(a) for a in arguments] + ["--root", str(tmp_path / "data"), "--jobs", "2"]
        code = main(arguments, console=Console(file=file, width=160))
        return code, file.getvalue()

    return call


def load(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_everything_is_prepared_checked_and_read_for_training(run, tmp_path):
    for name, unpack in UNPACK.items():
        assert run(name, unpack(tmp_path / name))[0] == 0
    code, text = run("check")
    assert code == 0, text
    config = base().data
    with config.unlocked():
        config.update(root=str(tmp_path / "data"), source_size=(2, 34), target_size=(2, 34))
        config.update(source_held_out=1, selection_images=1)
        for config.source in ("gta5", "synthia"):
            assert sources.missing(config) == []
            for role in sources.ROLES:
                source = sources.open_source(config, role)
                assert [source[i]["image"].shape for i in range(len(source))]


def test_gta5_labels_by_palette_index(run, tmp_path):
    code, text = run("gta5", unpack_gta5(tmp_path / "gta"))
    assert code == 0
    known = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
    expected = [[known.get(int(i), 255) for i in row] for row in IDS]
    np.testing.assert_array_equal(load(tmp_path / "data/game/labels_cs/00002.png"), expected)
    assert "gta5: 2 images, 2 labels in" in text
    assert "note: 24964 of 24966 numbers are missing: 00003 to 24966" in text
    assert "images: 2 linked, as in" in text and "labels: 2 written, as in" in text
    assert "2 kept" in run("gta5", tmp_path / "gta")[1]


def test_synthia_labels_of_sixteen_bits(run, tmp_path):
    assert run("synthia", unpack_synthia(tmp_path / "synthia"))[0] == 0
    found = load(tmp_path / "data/synthia/labels_cs/0000001.png")
    expected = [255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3,
                255]  # fmt: skip
    np.testing.assert_array_equal(found, [expected] * 3)


def synthia_label(folder, number, value):
    """Give a SYNTHIA label a value at its first pixel."""
    samples = np.zeros((3, 23, 3), np.uint16)
    samples[..., 0] = np.arange(23)
    samples[0, 0, 0] = value
    save_sixteen_bits(folder / f"RAND_CITYSCAPES/GT/LABELS/{number:07d}.png", samples)


@pytest.mark.parametrize("value", [23, 256 + 3, 7 * 256])
def test_a_synthia_label_with_an_impossible_id_is_left_out(run, tmp_path, capsys, value):
    """Of 259 the lower byte alone would be road, of 1792 the upper one a sign."""
    synthia_label(unpack_synthia(tmp_path / "synthia"), 1, value)
    assert run("synthia", tmp_path / "synthia")[0] == 2
    error = capsys.readouterr().err.splitlines()[0]
    assert f"0000001.png holds {value}, which is no id of SYNTHIA (0..22)" in error
    assert [p.name for p in (tmp_path / "data/synthia/labels_cs").iterdir()] == ["0000000.png"]


STREET = np.array([[0, 0, 0, 2, 2, 10, 10, 8, 13, 11]], np.uint8).repeat(4, 0)  # as train ids
VOID = np.where(np.arange(10) < 2, 255, STREET).astype(np.uint8)


LABELS = {"gta5": "labels/*", "cityscapes": "gtFine/*/*/*", "synthia": "*/GT/LABELS/*"}


@pytest.mark.parametrize("ids", [STREET, VOID], ids=["no ignored pixel", "ignored pixels"])
@pytest.mark.parametrize("name", ["gta5", "cityscapes", "synthia"])
@pytest.mark.parametrize("flag", [(), ("--dry-run",)])
def test_labels_that_are_train_ids_already_are_refused(run, tmp_path, capsys, name, ids, flag):
    source = UNPACK[name](tmp_path / "source")
    for path in source.glob(LABELS[name]):
        if name == "synthia":
            save_sixteen_bits(path, ids[..., None].astype(np.uint16).repeat(3, 2))
        else:
            save(path, ids)
    assert run(name, source, *flag)[0] == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "look like train ids" in error and "prepared already" in error and "0 (" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_the_placeholders_of_a_test_split_are_no_labels(run, tmp_path, capsys):
    source = unpack_cityscapes(tmp_path / "cs")
    for path in source.glob("gtFine/**/*.png"):
        save(path, [[0, 1, 3, 0]])
    assert run("cityscapes", source)[0] == 2
    assert "placeholders" in capsys.readouterr().err


def test_a_street_with_few_classes_is_prepared(run, tmp_path):
    """Road, sidewalk and building alone: below 19, but hardly anything is void."""
    source = unpack_gta5(tmp_path / "gta")
    for path in source.glob("labels/*.png"):
        save(path, np.array([[7, 8, 11, 7, 7, 8, 11, 11, 7, 0] * 4]))
        save(path.parents[1] / f"images/{path.name}", PHOTO[:1].repeat(2, 1)[:, :40])
    assert run("gta5", source)[0] == 0


def test_gta5_sizes_that_differ_are_reported(run, tmp_path):
    source = unpack_gta5(tmp_path / "gta")
    save(source / "images/00002.png", np.zeros((174, 319, 3)))
    save(source / "labels/00002.png", np.full((175, 319), 7), palette=True)
    code, text = run("gta5", source)
    assert code == 0
    assert "labels brought to 1914×1052, as their images differ in size: 1: 00002" in text
    assert "(image 319×174, label 319×175)" in text
    assert load(tmp_path / "data/game/labels_cs/00002.png").shape == (1052, 1914)
    code, text = run("check")
    assert code == 0 and "00002 (image 319×174, label 1914×1052)" in text


def test_pairs_of_other_proportions_are_left_out_and_named(run, tmp_path, capsys):
    source = unpack_gta5(tmp_path / "gta")
    save(source / "labels/00002.png", np.zeros((4, 34)), palette=True)
    assert run("gta5", source)[0] == 2
    told = capsys.readouterr().err
    assert "labels/00002.png does not fit" in told and "image 34×2, label 34×4" in told
    assert not (tmp_path / "data/game/images/00002.png").exists()


@pytest.mark.parametrize("name", UNPACK)
@pytest.mark.parametrize("copy", [False, True])
def test_a_dry_run_writes_nothing(run, tmp_path, name, copy):
    source = UNPACK[name](tmp_path / "source")
    code, text = run(name, source, "--dry-run", *["--copy"] * copy)
    assert code == 0
    assert f"to be {'copied' if copy else 'linked'}" in text and "to be written" in text
    assert "dry run: nothing was written" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_copies_need_no_originals(run, tmp_path):
    source = unpack_gta5(tmp_path / "gta")
    assert run("gta5", source, "--copy")[0] == 0
    source.rename(tmp_path / "gone")
    assert run("check")[0] == 0


def test_links_need_their_originals(run, tmp_path):
    source = unpack_gta5(tmp_path / "gta")
    assert run("gta5", source)[0] == 0
    source.rename(tmp_path / "gone")
    code, text = run("check")
    assert code == 2 and "gta5: 2 unreadable files" in text
    assert run("gta5", tmp_path / "gone")[0] == 0
    assert run("check")[0] == 0


def test_bad_files_are_named_on_stderr(run, tmp_path, capsys):
    source = unpack_synthia(tmp_path / "synthia") / "RAND_CITYSCAPES/GT/LABELS"
    content = (source / "0000001.png").read_bytes()
    (source / "0000001.png").write_bytes(content[:-30])
    assert run("synthia", tmp_path / "synthia")[0] == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: cannot read label file") and "0000001.png" in first
    assert second.startswith("error: 1 of 2 were left out: mend these")
    (source / "0000001.png").write_bytes(content)
    code, text = run("synthia", tmp_path / "synthia")
    assert code == 0 and "1 written, 1 kept" in text


def test_folders_that_are_wrong_are_one_line(run, tmp_path, capsys):
    assert run("cityscapes", unpack_gta5(tmp_path / "gta"))[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no folder leftImg8bit" in line and "it holds images, labels" in line
    assert run("check")[0] == 2
    assert "holds none of" in capsys.readouterr().err


def test_a_root_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "data").write_text("no folder")
    assert run("gta5", unpack_gta5(tmp_path / "gta"))[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --root") and "cannot be written" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: command"),
        (["gta5"], "required: SOURCE"),
        (["kitti", "x"], "invalid choice: 'kitti'"),
        (["check", "--jobs", "0"], "a number of 1 or more is needed, not '0'"),
        (["check", "--copy"], "unrecognized arguments: --copy"),
    ],
)
def test_mistakes_on_the_command_line(arguments, told, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line


def test_interruption(run, tmp_path, monkeypatch, capsys):
    source = unpack_gta5(tmp_path / "gta")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dasac_jax.data.preparation.prepare_data.carry_out", interrupt)
    assert run("gta5", source)[0] == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_script(tmp_path):
    source = unpack_gta5(tmp_path / "gta")
    done = subprocess.run(
        [sys.executable, SCRIPT, "gta5", source, "--root", tmp_path / "data"],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[1],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "images: 2 linked" in done.stdout
    assert (tmp_path / "data/game/labels_cs/00001.png").is_file()
