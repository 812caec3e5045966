import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dasac_jax.data import label_survey, sources
from dasac_jax.data.preparation.build_tfds import main

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "build_tfds.py"


@pytest.fixture
def build(root, tmp_path):
    """build(flag, …): exit code and output of a build from `root` to tmp_path/out."""

    def run(*flags):
        text = io.StringIO()
        flags = [*flags, "--root", str(root), "--output", str(tmp_path / "out")]
        return main(flags, console=Console(file=text, width=300)), text.getvalue()

    return run


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_set_is_stored_in_a_folder_of_its_own(build, tmp_path, capsys):
    code, text = build("cityscapes")
    assert (code, capsys.readouterr().out) == (0, "")
    assert "cityscapes: 9 of train, 3 of val, 0.00 GB: " in text
    assert text.strip().endswith("out/prepared_cityscapes/full/1.0.0")
    assert files(tmp_path / "out") == [
        f"prepared_cityscapes/full/1.0.0/{name}"
        for name in (
            "dataset_info.json",
            "features.json",
            "metadata.json",
            "prepared_cityscapes-train.array_record-00000-of-00001",
            "prepared_cityscapes-val.array_record-00000-of-00001",
        )
    ]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["prepared_cityscapes"]
    assert build("cityscapes", "--splits", "test,val", "--size", "6x11")[0] == 0
    names = {path.name.split(".")[0] for path in (tmp_path / "out").glob("*/6x11/*/*array*")}
    assert names == {"prepared_cityscapes-test", "prepared_cityscapes-val"}


def test_nothing_is_left_among_temporary_files(build, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert build("cityscapes")[0] == 0
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("flags", [(), ("--size", "6x11")])
@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[255] * 9], "no label pixel stands for a class"),
        ([[255] * 9 + [1]], "most label pixels are ignored, 255 (90.0 %), 1 (10.0 %)"),
        ([[26, 0]], "contains 26, which is no train id"),
    ],
)
def test_labels_of_another_kind_are_not_stored(build, root, tmp_path, capsys, flags, ids, words):
    for path in (root / "game/labels_cs").iterdir():
        Image.fromarray(np.array(ids, np.uint8)).save(path)
    assert build("gta5", *flags)[0] == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert words in error and not list(tmp_path.glob("out/*/*/*"))


def test_each_label_is_looked_at_while_a_set_is_stored(build, root, capsys, monkeypatch):
    monkeypatch.setattr(label_survey, "spread", lambda count, most: [0])  # the sample
    Image.fromarray(np.array([[26]], np.uint8)).save(root / "game/labels_cs/00007.png")
    assert build("gta5")[0] == 2
    assert "00007.png contains 26" in capsys.readouterr().err


def test_a_set_that_is_there_is_kept(build, tmp_path, capsys):
    assert build("gta5")[0] == 0
    before = files(tmp_path / "out")
    assert build("gta5")[0] == 2
    assert "is there already: remove it" in capsys.readouterr().err
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["synthia"], "holds no images *.png"),
        (["gta5", "--splits", "val"], "--splits: gta5 has no 'val', only train"),
        (["gta5", "--size", "6"], "'6' is no height and width, as in 512x1024"),
        (["gta5", "--size", "0x5"], "'0x5' is no height and width"),
        (["gta5", "--jobs", "0"], "a number of 1 or more"),
        (["kitti"], "invalid choice: 'kitti'"),
    ],
)
def test_mistakes_end_with_one_line(build, tmp_path, capsys, flags, message):
    assert build(*flags)[0] == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--size", "6x11"]])
@pytest.mark.parametrize("name", ["images/00007.png", "labels_cs/00007.png"])
def test_an_unreadable_file_is_named_and_nothing_is_kept(
    build, root, tmp_path, capsys, flags, name
):
    path = root / "game" / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # among the compressed pixels
    path.write_bytes(content)
    assert build("gta5", *flags)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot read") and name in line
    assert files(tmp_path / "out") == []


def test_labels_that_are_no_train_ids_are_refused_when_resized(build, root, capsys):
    from PIL import Image

    Image.new("L", (20, 12), 33).save(root / "game/labels_cs/00002.png")
    assert build("gta5", "--size", "6x11")[0] == 2
    assert "contains 33, which is no train id" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(build, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert build("gta5")[0] == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_is_reported_and_nothing_is_kept(build, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, before[1]))
    try:
        code, _ = build("gta5", "--size", "90x70")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "prepared_gta5/90x70/1.0.0: " in capsys.readouterr().err
    assert files(tmp_path / "out") == []


_WITHOUT_TENSORFLOW = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        hidden = name.partition(".")[0] == "tensorflow"
        return None if hidden else PathFinder.find_spec(name, *rest)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
script, config = sys.argv[1], dict(arg.split("=") for arg in sys.argv[2:4])
sys.argv = [script, *sys.argv[4:]]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
from ml_collections import ConfigDict
from dasac_jax.data import sources
data = ConfigDict(config | {"source": "gta5", "source_size": (12, 20), "target_size": (6, 11),
    "lists": "", "source_images": 0, "source_held_out": 0})
print(sum(int(item["image"].sum()) for item in sources.open_source(data, "source_train")))
assert "tensorflow" not in sys.modules
"""


def test_building_and_reading_need_no_tensorflow(config, root, tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TENSORFLOW, SCRIPT, "root=/nowhere", f"tfds={out}",
         "gta5", "--root", root, "--output", out],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    config.source_images = config.source_held_out = 0
    expected = sum(int(x["image"].sum()) for x in sources.open_source(config, "source_train"))
    assert int(ended.stdout.split()[-1]) == expected


def test_a_killed_build_leaves_no_set_and_the_next_one_cleans_up(build, root, tmp_path):
    path = root / "game/images/00004.png"
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)  # reading it waits for ever
    out = tmp_path / "out"
    # Nobody can clean up for a killed program: its temporary files go where pytest removes them.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "gta5", "--root", root, "--output", out],
        cwd=ROOT, env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(out.glob("*/*/*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = out.glob("*/*/*")
    assert left.name.startswith("incomplete.")
    path.unlink()
    path.write_bytes(content)
    assert build("gta5")[0] == 0
    assert [p.name for p in out.glob("*/*/*")] == ["1.0.0"]
