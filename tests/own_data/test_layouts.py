"""From folders in the layouts of known data sets to finished runs, by the printed commands."""

import json
import runpy
import shlex

import pytest

from dasac_jax import main as training
from dasac_jax import predict
from dasac_jax.own_data import outputs

FEW_STEPS = {
    "baseline.epochs": 1, "adapt.epochs": 2, "loader_threads": 2, "adapt.group_size": 2,
    "adapt.groups": 4, "baseline.crop": (32, 32), "adapt.crop": (40, 64),
}  # fmt: skip
NAMES = ("camvid11", "camvid32", "bdd100k", "idd", "mapillary", "acdc", "mask")


def printed(out, module):
    """The arguments of the command of a module that was printed."""
    (line,) = [line for line in out.splitlines() if f"python -m {module} " in line]
    return shlex.split(line)[3:]


@pytest.mark.parametrize("name", NAMES)
def test_known_layouts_become_finished_runs(
    name, layouts, prepare, tmp_path, monkeypatch, small, capsys
):
    layout = layouts[name]
    layout.make(tmp_path)
    if name != "mask":
        monkeypatch.setattr(outputs, "time", lambda *_: "1 min")
    monkeypatch.chdir(tmp_path)
    code, out = prepare(layout.flags)
    assert code == 0, out
    assert "source: 8 pairs" in out and "target: 6 pairs" in out
    assert ("without partner" in out) == (name == "camvid32")  # whose sequences share folders
    arguments = printed(out, "dasac_jax.main")
    assert arguments[::2] == ["--config", "--workdir"]
    config = runpy.run_path(arguments[1])["get_config"]()
    assert config.data.classes.names == layout.names
    assert set(layout.source_ids) <= set(config.data.classes.source_ids)
    config.update_from_flattened_dict(FEW_STEPS)
    training.run(config, tmp_path / arguments[3])
    result = json.loads((tmp_path / arguments[3] / "metrics.json").read_text())
    assert list(result["adapted"]["iou"]) == list(layout.names)
    assert result["facts"]["images"] == 6
    # A class whose labels were not understood would have no pixel to score.
    assert None not in result["adapted"]["iou"].values()
    if name == "mask":
        predict.main(printed(out, "dasac_jax.predict"))
        assert len(list((tmp_path / "runs/mine/predictions").rglob("my photo *.png"))) == 12
