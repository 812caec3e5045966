"""From folders in the layouts of known data sets to finished runs, by the printed commands."""

import json
import re
import runpy
import shlex

import pytest

from dasac_jax.inference import image_files
from dasac_jax.own_data import outputs
from dasac_jax.reporting import training_curves

FEW_STEPS = ("--config.baseline.epochs=1", "--config.adapt.epochs=2")
# What a layout can break are reading, training and scoring; adapting is the same for all.
BASELINE = ("--config.stages=baseline",)
NAMES = ("camvid11", "camvid32", "bdd100k", "idd", "mapillary", "acdc", "mask")


def printed(out, module):
    """The arguments of the command of a module that was printed."""
    (line,) = [line for line in out.splitlines() if f"python -m {module} " in line]
    return shlex.split(line)[3:]


@pytest.mark.parametrize("name", NAMES)
def test_known_layouts_become_finished_runs(
    name, layouts, prepare, called, tmp_path, monkeypatch, small_network
):
    layout = layouts[name]
    layout.make(tmp_path)
    whole = name == "camvid11"
    # These are slow, and the same for all: runs of the commands have drawn the curves.
    monkeypatch.setattr(training_curves, "draw", lambda *_, **__: {})
    if not whole:
        monkeypatch.setattr(outputs, "duration", lambda *_: "1 min")
    monkeypatch.chdir(tmp_path)
    code, out = prepare(layout.flags)
    assert code == 0, out
    assert "source: 8 pairs" in out and "target: 6 pairs" in out
    shared = name == "camvid32"  # its sequences share folders
    assert ("labels without image" in out) == shared and "images without label" not in out
    arguments = printed(out, "dasac_jax.main")
    assert arguments[::2] == ["--config", "--workdir"]
    config = runpy.run_path(arguments[1])["get_config"]()
    assert config.data.classes.names == layout.names
    assert set(layout.source_ids) <= set(config.data.classes.source_ids)
    run = tmp_path / arguments[3]
    ended = called(*arguments[:3], str(run), *FEW_STEPS, *(() if whole else BASELINE))
    assert ended.code == 0, ended.err
    result = json.loads((run / "metrics.json").read_text())
    scored = result["adapted" if whole else "baseline"]["iou"]
    assert list(scored) == list(layout.names)
    assert result["facts"]["images"] == 6
    # A class whose labels were not understood would have no pixel to score.
    assert None not in scored.values()
    if not whole:  # a stage by itself does what it is asked to
        rows = [row for row in result if row not in ("classes", "left_out")]
        assert rows == ["source only", "baseline", "facts"]
        assert not (run / "weights.tsv").exists() and not (run / "adapt").exists()
    asked = printed(out, "dasac_jax.predict")
    assert asked[:2] == [arguments[3], "--images"] and asked[-1] == "--overlay"
    assert len(image_files.find_images(asked[2:3])) == 6
    if whole:
        assert re.search(r"takes about \d+ min, 1000 steps of \S+ s \(baseline\) and 500 ", out)
