"""Data of one's own, from files as they lie about to a report: what docs/custom_data.md says."""

import csv
import json
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import dasac_jax
from dasac_jax import config as recipe
from dasac_jax import evaluate, predict
from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.reporting import summary
from dasac_jax.runtime import data_parallel
from dasac_jax.training import final_scores, from_config, stages, workdir

ROOT = Path(__file__).parents[2]
NAMES = ["floor", "wall", "object"]
COLOURS = [(128, 64, 128), (70, 130, 180), (220, 160, 0)]
SOURCE_IDS, TARGET_IDS = (np.array(x, np.uint8) for x in ([1, 5, 40, 9], [0, 1, 2, 77]))
TINY = {
    "arch": "deeplabv2_demo", "init": "",
    "data.source_size": (40, 64), "data.target_size": (48, 72),
    "baseline.crop": (32, 32), "baseline.source_batch": 4, "baseline.target_batch": 4,
    "baseline.epochs": 5, "baseline.learning_rate": 0.01, "adapt.crop": (32, 64),
    "adapt.source_batch": 4, "adapt.groups": 1, "adapt.group_size": 2, "adapt.epochs": 7,
    "loader_threads": 2,
}  # fmt: skip


def scene(seed, size, look, ids):
    """An image with a floor, a wall and an object, and its labels; the fourth id is unknown."""
    height, width = size
    place = np.ones(size, int)
    place[height // 2 :] = 0
    rng = np.random.default_rng(seed)
    left = int(rng.integers(0, width // 2))
    place[height // 3 : -4, left : left + width // 3] = 2
    place[:3] = 3
    colours = np.array([[60, 60, 60], [200, 200, 190], [190, 60, 40], [0, 0, 0]]) + look
    noise = rng.integers(-12, 12, (*size, 3))
    return np.clip(colours[place] + noise, 0, 255).astype(np.uint8), ids[place]


def write(root):
    """Pairs of several sizes and formats, target images without labels, lists."""
    lists = {name: [] for name in ("source_train", "target_train", "val")}
    sizes = ((40, 64), (30, 60), (64, 64))
    for name in lists:
        (root / name).mkdir(parents=True)
    for i in range(8):
        image, label = scene(i, sizes[i % 3], 0, SOURCE_IDS)
        Image.fromarray(image).save(root / f"source_train/{i}.jpg")
        stored = Image.fromarray(label)
        if i % 2:
            stored.putpalette([k * 7 % 256 for k in range(768)])
            assert stored.mode == "P"
        stored.save(root / f"source_train/{i}_ids.png")
        lists["source_train"].append(f"source_train/{i}.jpg source_train/{i}_ids.png")
    for i in range(6):
        image, _ = scene(50 + i, sizes[i % 3][::-1], (0, 30, -20), TARGET_IDS)
        Image.fromarray(image).save(root / f"target_train/{i}.png")
        lists["target_train"].append(f"target_train/{i}.png")
    for i in range(3):
        image, label = scene(90 + i, (50, 70), (0, 30, -20), TARGET_IDS)
        Image.fromarray(image).save(root / f"val/{i}.png")
        Image.fromarray(label).save(root / f"val/{i}_ids.png")
        lists["val"].append(f"val/{i}.png val/{i}_ids.png")
    (root / "lists").mkdir()
    for name, lines in lists.items():
        (root / f"lists/{name}.txt").write_text("\n".join(lines) + "\n")


def flags(run, root, **changes):
    values = {"data.root": root, "data.lists": root / "lists"} | TINY
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return ["--config", "configs/custom_example.py", "--workdir", str(run), *overrides]


def custom_config(root, lists=None):
    """The example's configuration, made tiny, on these data."""
    config = runpy.run_path(str(ROOT / "configs/custom_example.py"))["get_config"]()
    config.lock()
    places = {"data.root": str(root), "data.lists": str(lists or root / "lists")}
    config.update_from_flattened_dict(TINY | places)
    return config


@pytest.fixture(scope="module")
def trained(command, once):
    """(data, run): the example recipe, made tiny, on three classes of three sizes."""

    def make(folder):
        write(folder / "data")
        ended = command(*flags(folder / "run", folder / "data"))
        assert ended.code == 0, ended.err
        (folder / "out.txt").write_text(ended.out)

    folder = once("custom", make)
    return folder / "data", folder / "run"


def test_a_run_scores_and_shows_its_own_classes(trained):
    _, run = trained
    result = json.loads((run / "metrics.json").read_text())
    assert list(result["adapted"]["iou"]) == NAMES
    assert [tuple(colour) for colour in result["classes"].values()] == COLOURS
    assert result["facts"]["images"] == 3
    assert result["baseline"]["iou"]["wall"] > 0.5  # that is, labels were read as they are meant
    page = (run / "report.html").read_text()
    assert "#dca000" in page and "object" in page and "bicycle" not in page
    header, *lines = (run / "weights.tsv").read_text().splitlines()[1:]
    assert header.split("\t") == ["image", *NAMES] and len(lines) == 6
    picture = np.asarray(Image.open(run / "report.png")).reshape(-1, 3)
    assert all((picture == colour).all(-1).sum() > 100 for colour in COLOURS)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert len(json.loads(line)["values"].get("class_prior", NAMES)) == 3


def test_without_labelled_target_images_the_report_has_no_scores(trained, tmp_path, capsys):
    data, run = trained
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").glob("report.*"):
        path.unlink()
    (tmp_path / "run/metrics.json").unlink()
    shutil.copytree(data / "lists", tmp_path / "lists")
    (tmp_path / "lists/val.txt").unlink()
    config = custom_config(data, tmp_path / "lists")
    job = workdir.open_run(config, tmp_path / "elsewhere")
    final_scores.report_run(workdir.Run(job.config, tmp_path / "run"))
    for name in ("report.md", "report.html"):
        assert summary.UNSCORED in (tmp_path / "run" / name).read_text()
    page = (tmp_path / "run/report.html").read_text()
    assert "IoU by class" not in page and "Curves" in page and "Configuration" in page
    assert "IoU" not in capsys.readouterr().out
    (tmp_path / "lists/target_train.txt").unlink()
    with pytest.raises(UserError, match=r"lists/target_train.txt: the list of target train") as e:
        workdir.open_run(config, tmp_path / "elsewhere")
    assert "val.txt" not in str(e.value) and not (tmp_path / "elsewhere").exists()


def test_target_labels_cannot_reach_a_step(tmp_path):
    write(tmp_path / "data")
    listed = tmp_path / "data/lists/target_train.txt"
    images = listed.read_text().split()
    weights = np.random.default_rng(0).random((6, 3))
    layout = data_parallel.layout("adapt", 4, 1, 2, devices=1, local_devices=1)
    found = []
    for label in ("", " val/0_ids.png", " nowhere.png"):  # none, those of others, none to be read
        listed.write_text("".join(f"{image}{label}\n" for image in images))
        job = workdir.Run(custom_config(tmp_path / "data"), tmp_path)
        found.append(list(stages.batches(job, layout, weights, 0, 4)))
        assert (job.open("target_train")[3]["label"] == 255).all()
    for batches in found[1:]:
        for ours, theirs in zip(batches, found[0], strict=True):
            assert ours.keys() == theirs.keys() == {
                "source_image", "source_label", "source_item", "target_image", "target_item",
                "names",
            }  # fmt: skip
            for name, array in theirs.items():
                np.testing.assert_array_equal(ours[name], array)
    labels = np.concatenate([batch["source_label"].ravel() for batch in found[0]])
    assert set(np.unique(labels)) == {0, 1, 2, 255}


def test_two_classes_are_trained(tmp_path):
    config = custom_config(tmp_path)
    pair = {"names": ("no", "yes"), "palette": ((1, 2, 3), (4, 5, 6))}
    config.data.classes.update(pair, source_ids=((0, "no"), (255, "yes")), target_ids=())
    recipe.check(config)
    state = jax.eval_shape(lambda: from_config.create_state(config, "adapt"))
    assert state.class_prior.shape == (2,)
    raw = {
        "source_image": np.zeros((1, 4, 40, 64, 3), np.uint8),
        "source_label": np.zeros((1, 4, 40, 64), np.uint8),
        "source_item": np.arange(4, dtype=np.int32)[None],
        "target_image": np.zeros((1, 1, 48, 72, 3), np.uint8),
        "target_view": np.arange(2, dtype=np.int32)[None],
    }
    step = from_config.adapt_step(config, 2)
    mapped = jax.vmap(step, in_axes=(None, 0), axis_name=data_parallel.AXIS)
    after, metrics = jax.eval_shape(mapped, state, raw)  # traced, not compiled
    assert after.class_prior.shape == (1, 2) and metrics["loss_target"].shape == (1,)


def test_a_checkpoint_knows_its_classes(trained):
    _, run = trained
    for stage in ("baseline", "adapt"):
        facts = store.facts(run / stage / "checkpoints")
        assert facts["num_classes"] == 3 and facts["class_names"] == NAMES
        assert [tuple(colour) for colour in facts["palette"]] == COLOURS
        assert facts["dtype"] == "float32"
    network = dasac_jax.load(run)
    assert list(network.class_names) == NAMES
    assert [tuple(colour) for colour in network.palette.tolist()] == COLOURS


def test_predictions_are_drawn_in_its_colours_and_not_for_the_server(trained, tmp_path, capsys):
    data, run = trained
    given = ["--images", str(data / "val/0.png"), "--output", str(tmp_path / "out")]
    predict.main([str(run), *given, "--overlay"])
    labels = np.asarray(Image.open(tmp_path / "out/labels/0.png"))
    assert labels.shape == (50, 70) and set(np.unique(labels)) <= {0, 1, 2}
    shown = np.asarray(Image.open(tmp_path / "out/overlay/0.png"))[50:].reshape(-1, 3)
    assert all((shown == colour).all(-1).any() for colour in COLOURS)  # the legend
    assert json.loads((tmp_path / "out/prediction.json").read_text())["classes"] == NAMES
    with pytest.raises(SystemExit) as ended:
        predict.main([str(run), *given[:3], str(tmp_path / "other"), "--cityscapes-ids"])
    assert ended.value.code == 2
    assert "3 classes of its own (floor, …)" in capsys.readouterr().err


def test_evaluations_read_the_labels_as_the_run_does(trained, tmp_path, capsys):
    data, run = trained
    evaluate.main([str(run), "--output", str(tmp_path / "all")])
    document = json.loads((tmp_path / "all/evaluation.json").read_text())
    assert document["classes"] == NAMES and document["means"] == {"mean over 3 classes": []}
    (result,) = document["results"].values()
    counts = np.array(result["confusion"])
    expected = [np.asarray(Image.open(data / f"val/{i}_ids.png")) for i in range(3)]
    assert counts.sum(1).tolist() == [sum((x == i).sum() for x in expected) for i in range(3)]
    assert result["iou"]["wall"] > 0.5
    with (tmp_path / "all/evaluation.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} >= set(NAMES)
    # A list of its own is read by the same rule.
    (tmp_path / "one.txt").write_text("val/2.png val/2_ids.png\n")
    evaluate.main([str(run), "--list", str(tmp_path / "one.txt"), "--output", str(tmp_path / "1")])
    (result,) = json.loads((tmp_path / "1/evaluation.json").read_text())["results"].values()
    assert np.sum(result["confusion"]) == (expected[2] != 77).sum()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(run), "--class-names", "floor,wall", "--output", str(tmp_path / "2")])
    assert ended.value.code == 2 and "has 3 classes, but 2" in capsys.readouterr().err
