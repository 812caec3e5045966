"""Runs of several seeds in an evaluation: mean, deviation, and differences seed by seed."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from dasac_jax import evaluate
from dasac_jax.errors import UserError
from dasac_jax.evaluation import seed_groups
from dasac_jax.evaluation.seed_groups import Named

NAMES = ("road", "sky")


def scored(road, sky=math.nan):
    iou = np.array([road, sky])
    return {"iou": iou, "means": {"mean": {"iou": np.nanmean(iou)}}, "pixel_accuracy": road}


BY_NAME = {
    "a0": scored(0.2), "a1": scored(0.4, 0.5), "b0": scored(0.5), "b1": scored(0.6, 0.9),
    "c5": scored(0.1),
}  # fmt: skip
GROUPS = [
    Named("a", {0: "a0", 1: "a1"}),
    Named("b", {0: "b0", 1: "b1"}, (2,)),
    Named("c", {5: "c5"}),
]


def test_mean_deviation_and_paired_differences():
    table = seed_groups.table(GROUPS, BY_NAME, NAMES)
    assert table.header == ["class", "a", "b", "c", "b − a", "c − a"]
    road, sky = table.lines
    # 20 and 40; 50 and 60; seed by seed +30 and +20. Of c no seed is there in a.
    assert road == ["road", "30.00 ± 14.14", "55.00 ± 7.07", "10.00", "+25.00 ± 7.07", "–"]
    assert sky == ["sky", "50.00", "90.00", "–", "+40.00", "–"]
    assert [line[0] for line in table.totals] == ["mean", "pixel accuracy"]


def test_the_document_has_every_number():
    found = json.loads(json.dumps(seed_groups.document(GROUPS, BY_NAME, NAMES), allow_nan=False))
    assert found["a"]["iou"]["road"] == pytest.approx(
        {"mean": 0.3, "deviation": 0.02**0.5, "count": 2}
    )
    assert found["a"]["iou"]["sky"] == {"mean": 0.5, "deviation": None, "count": 1}
    assert found["b"]["unfinished"] == [2] and found["b"]["seeds"] == {"0": "b0", "1": "b1"}
    assert found["c"]["iou"]["sky"] == {"mean": None, "deviation": None, "count": 0}


def test_notes_say_which_seeds_are_finished():
    assert seed_groups.notes(GROUPS)[1:] == [
        "b: 2 of 3 seeds are finished: 0, 1",
        "c: 1 of 1 seeds are finished: 5; one seed says nothing of how much another one would "
        "differ",
    ]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of four seeds, of which two are finished."""
    for seed in (0, 2, 3, 10):
        (tmp_path / f"seed{seed}" / "adapt").mkdir(parents=True)
    for seed in (2, 10):
        (tmp_path / f"seed{seed}" / "metrics.json").write_text("{}")
    for name in ("seed", "seeds", "seed01", "seedling"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_run_stands_for_its_finished_seeds(run):
    group = seed_groups.find(run)
    assert group.members == {2: run / "seed2", 10: run / "seed10"} and group.unfinished == (0, 3)
    stage = seed_groups.find(run / "adapt")
    assert list(stage.members.values()) == [run / "seed2" / "adapt", run / "seed10" / "adapt"]
    assert seed_groups.find(run / "seed2") is None
    assert seed_groups.find(run / "seed2" / "adapt") is None
    assert seed_groups.find(run / "other") is None
    names, groups = evaluate.grouped([run / "baseline", run / "adapt"], runs=True)
    assert list(names) == ["seed2/baseline", "seed10/baseline", "seed2/adapt", "seed10/adapt"]
    assert groups == [
        Named("baseline", {2: "seed2/baseline", 10: "seed10/baseline"}, (0, 3)),
        Named("adapt", {2: "seed2/adapt", 10: "seed10/adapt"}, (0, 3)),
    ]
    assert evaluate.grouped([run], runs=False)[1] == []
    with pytest.raises(UserError, match="is given twice"):
        evaluate.grouped([run, run], runs=True)


def test_a_run_without_a_finished_seed_is_refused(run):
    for seed in (2, 10):
        (run / f"seed{seed}" / "metrics.json").unlink()
    with pytest.raises(UserError, match="none of its seeds 0, 2, 3, 10 is finished"):
        seed_groups.find(run)


def test_the_command_scores_all_seeds(whole, tmp_path, capsys):
    for seed in (0, 1):
        (tmp_path / "run" / f"seed{seed}").mkdir(parents=True)
        for name in ("metrics.json", "config.json", "adapt", "data"):
            (tmp_path / "run" / f"seed{seed}" / name).symlink_to(whole.folder / name)
    evaluate.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    said, text = capsys.readouterr().out, (tmp_path / "out" / "evaluation.md").read_text()
    for told in ("run: 2 of 2 seeds are finished: 0, 1", "± 0.00", "A: seed0"):
        assert told in said and told in text
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(stored["results"]) == ["seed0", "seed1"]
    of_run = stored["seeds"][next(iter(stored["seeds"]))]
    assert of_run["iou"]["road"]["mean"] == stored["results"]["seed0"]["iou"]["road"]


def test_each_seed_is_scored_on_its_own_data(whole, tmp_path):
    """As each seed's own report does: the demo renders other images for each."""
    for seed in (0, 1):
        (tmp_path / "run" / f"seed{seed}").mkdir(parents=True)
        for name in ("metrics.json", "config.json", "adapt", "data"):
            (tmp_path / "run" / f"seed{seed}" / name).symlink_to(whole.folder / name)
    data = tmp_path / "run/seed1/data"
    data.unlink()
    shutil.copytree(whole.folder / "data", data)
    first = min((data / "cityscapes/leftImg8bit/val").rglob("*.png"))
    first.unlink()
    found = {}
    for name in ("run", "run/seed1"):
        evaluate.main([str(tmp_path / name), "--output", str(tmp_path / "out")])
        found[name] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        shutil.rmtree(tmp_path / "out")
    together, (alone,) = found["run"]["results"], found["run/seed1"]["results"].values()
    assert together["seed1"] == alone != together["seed0"]
    told = found["run"]["facts"]["data"]
    assert told.endswith(f"run/seed0/data, {data} (2 sets of images)")
