"""scripts/show_views.py draws what training sees, and says what is wrong."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.training import workdir

ROOT = Path(__file__).parents[2]
show_views = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "show_views.py")))


@pytest.fixture(scope="module")
def folder(tiny_config, once):
    """A work directory with the tiny demo's images."""

    def make(place):
        config = tiny_config()
        with config.unlocked():
            config.data.root = str(place / "data")
        workdir.make_demo(workdir.Run(config, place))

    return once("tiny_images", make)


def sheet(path):
    return np.asarray(Image.open(path))


def test_sheet(tiny_config, folder, tmp_path):
    output = tmp_path / "new" / "sheet.png"
    told = show_views.run(tiny_config(), folder, output, step=0)
    first = sheet(output)
    assert told.startswith(f"{output}: {first.shape[1]}×{first.shape[0]} pixels")
    show_views.run(tiny_config(), folder, output, step=3, seed=5)
    assert not np.array_equal(sheet(output)[60:], first[60:])
    assert [path.name for path in output.parent.iterdir()] == ["sheet.png"]


def test_steps_and_seeds_read_other_images(tiny_config, folder):
    def names(step, seed):
        config = tiny_config(data__root=str(folder / "data"), seed=seed)
        return show_views.read_batch(workdir.Run(config, folder), step)["names"]

    assert names(1, 0) == names(1, 0)
    assert names(0, 0) != names(1, 0) != names(1, 5)


def test_weights_of_the_run_decide_what_is_read(tiny_config, folder, tmp_path):
    """All the weight on one image: it is what is drawn more often than one time in eight."""
    from dasac_jax.data import sampling

    config = tiny_config(data__root=str(folder / "data"))
    run = workdir.Run(config, tmp_path)
    names = [image for image, _ in run.open("target_train").pairs]
    counts = np.zeros((len(names), len(run.classes)), np.int64)
    counts[3] = 100
    sampling.save_weights(run.weights_file, names, counts, [entry.name for entry in run.classes])
    read = [name for step in range(12) for name in show_views.read_batch(run, step)["names"][-2:]]
    assert read.count(names[3]) > 12


def test_an_output_that_cannot_be_written(tiny_config, folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .* cannot be written"):
        show_views.run(tiny_config(), folder, tmp_path / "file" / "sheet.png", step=0)


def test_data_that_is_not_there(tiny_config, tmp_path):
    config = tiny_config()
    with config.unlocked():
        del config["demo"]
    with pytest.raises(UserError, match="game/images is missing"):
        show_views.run(config, tmp_path, tmp_path / "sheet.png", step=0)


def test_command_line():
    """Flags that are missing end with one line and code 2."""
    ended = subprocess.run(
        [sys.executable, "scripts/show_views.py", "--config", "configs/demo.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "error: --workdir is missing: give --config FILE and --workdir FOLDER"
    )
