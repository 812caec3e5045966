"""scripts/prepare_data.py from the command line, on small files in the sets' own formats."""

import subprocess
import sys
from pathlib import Path

import pytest
from original_sets import UNPACK, unpack_gta5, unpack_synthia

from dasac_jax.data.preparation.prepare_data import main

SCRIPT = Path(__file__).parents[3] / "scripts" / "prepare_data.py"


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
