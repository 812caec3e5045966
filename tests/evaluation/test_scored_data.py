"""What checkpoints are scored on: their own meaning of labels, and classes by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from dasac_jax import evaluate
from dasac_jax.errors import UserError
from dasac_jax.evaluation import scored_data, scores


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


NAMES = ("background", "road")
PALETTE = [[0, 0, 200], [99, 99, 99]]
MASK = [[0, "background"], [255, "road"]]
FACTS = {
    "class_names": list(NAMES),
    "palette": PALETTE,
    "data": {"source": "custom", "source_ids": MASK, "target_ids": MASK, "left_out": []},
}


@pytest.fixture
def masks(tmp_path):
    """Masks of 0 and 255 whose images say which class is to be predicted; three of four right."""
    write(tmp_path / "data/x.png", np.full((2, 4, 3), 10) * (np.arange(4) > 0)[None, :, None])
    write(tmp_path / "data/y.png", 255 * (np.arange(4) > 1)[None].repeat(2, 0))
    (tmp_path / "list.txt").write_text("x.png y.png\n")
    return tmp_path


def scored(folder, capsys, *paths, **flags):
    """How the command ends: code, IoU by result and class, the document, and what it said."""
    words = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
    given = ["--data-root", folder / "data", "--list", folder / "list.txt", *words]
    code = 0
    try:
        evaluate.main([str(x) for x in [*paths, *given, "--output", folder / "out"]])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    written = folder / "out/evaluation.json"
    stored = json.loads(written.read_text()) if written.exists() else {"results": {}}
    return code, {k: v["iou"] for k, v in stored["results"].items()}, stored, said.out + said.err


def test_a_copied_checkpoint_knows_what_its_labels_mean(masks, capsys, save):
    path = save(masks / "copy", classes=2, **FACTS)
    code, ious, _, said = scored(masks, capsys, path)
    assert code == 0, said
    assert list(ious.values()) == [{"background": 0.5, "road": pytest.approx(2 / 3)}]


def test_a_copy_in_another_runs_folder_keeps_its_own_meaning(masks, capsys, save):
    write(masks / "run/keep/x.png", [[0]])
    config = {"data.root": "nowhere", "data.source": "gta5", "data.classes.target_ids": []}
    (masks / "run/config.json").write_text(json.dumps(config))
    path = save(masks / "run/adapt", classes=2, **FACTS)
    code, ious, _, said = scored(masks, capsys, path)
    assert code == 0, said
    assert ious["run/adapt"]["background"] == 0.5


def test_a_checkpoint_that_does_not_say_says_so(masks, capsys, save):
    path = save(masks / "old", classes=2, class_names=list(NAMES), palette=PALETTE)
    code, _, _, said = scored(masks, capsys, path)
    assert code == 2 and "does not say what label values mean" in said
    assert "data.classes.target_ids=((0, 'background'), (255, 'road'))" in said


@pytest.mark.parametrize("names", [NAMES, ("sky", "road")])
def test_a_run_says_for_its_own_checkpoints_alone(masks, capsys, save, names):
    """A checkpoint of an earlier version that lies in another run's folder is none of that run."""
    config = {
        "data.root": "x", "data.source": "custom", "data.classes.names": names,
        "data.classes.palette": PALETTE, "data.classes.target_ids": [[0, names[0]], [255, "road"]],
    }  # fmt: skip
    path = save(masks / "run/adapt", classes=2, class_names=list(NAMES), palette=PALETTE)
    (masks / "run/config.json").write_text(json.dumps(config))
    code, _, _, said = scored(masks, capsys, path)
    own = names == NAMES
    assert code == (0 if own else 2) and ("nor does a run that it lies in" in said) != own


def test_classes_in_another_order_are_compared_by_name(masks, capsys, save):
    swapped = FACTS | {"class_names": ["road", "background"], "palette": PALETTE[::-1]}
    first = save(masks / "first", classes=2, **FACTS)
    # It predicts class 1, background by its own names, where the first one predicts road.
    second = save(masks / "second", classes=2, **swapped)
    code, ious, stored, said = scored(masks, capsys, first, second)
    assert code == 0, said
    assert ious["first"] == {"background": 0.5, "road": pytest.approx(2 / 3)}
    assert ious["second"] == {"background": 0.25, "road": 0.0}
    assert stored["classes"] == list(NAMES)
    assert "second: it predicts the classes in the order road, background" in said
    assert "in the order road, background" in stored["results"]["second"]["notes"][0]
    (alone,) = scored(masks, capsys, second)[1].values()
    assert alone == ious["second"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["road", "car"], "second has the class 'car', which is none of those"),
        (["road", "background", "car"], "second has 3 classes"),
    ],
)
def test_other_classes_do_not_compare(masks, capsys, save, names, words):
    first = save(masks / "first", classes=2, **FACTS)
    facts = {"class_names": names, "palette": [[1, 2, 3]] * len(names)}
    second = save(masks / "second", classes=len(names), **facts)
    code, _, _, said = scored(masks, capsys, first, second)
    assert code == 2 and words in said and not (masks / "out").exists()


def test_class_names_that_contradict_an_id_map_are_refused(masks, capsys, save):
    path = save(masks / "run", classes=2, **FACTS)
    code, _, _, said = scored(masks, capsys, path, class_names="road,background")
    assert code == 2 and "leave the flag out" in said and "background, road" in said


def test_class_names_say_what_train_ids_of_other_data_mean(masks, capsys, save):
    write(masks / "data/y.png", [[1, 1, 0, 0]] * 2)  # road is 0 there
    without = FACTS | {"data": FACTS["data"] | {"source_ids": [], "target_ids": []}}
    path = save(masks / "run", classes=2, **without)
    code, ious, _, said = scored(masks, capsys, path, class_names="road,background")
    assert code == 0, said
    assert list(ious.values()) == [{"background": 0.5, "road": pytest.approx(2 / 3)}]


def test_left_out_classes_go_with_the_checkpoint(tmp_path):
    facts = FACTS | {"data": FACTS["data"] | {"left_out": ["road"]}}
    assert scored_data.left_out(tmp_path, facts) == (1,)
    assert scored_data.left_out(tmp_path) == ()


@pytest.mark.parametrize("value", [0, 1])
def test_labels_without_any_class_are_not_scored(masks, capsys, save, value):
    write(masks / "data/y.png", np.full((2, 4), 7 + value))
    path = save(masks / "run", classes=2, **FACTS)
    code, _, _, said = scored(masks, capsys, path)
    assert code == 2 and "names 0, 255" in said and f"hold {7 + value} (100.0 %)" in said
    network = scores.open_network(path)
    root, list_file = masks / "data", masks / "list.txt"
    pairs = scored_data.open_pairs(
        path, root=root, split="val", list_file=list_file, facts=network.stored
    )
    with pytest.raises(UserError, match="nothing is scored"):
        scores.of_network("run", network, pairs)


def test_predictions_bring_their_classes_in_any_order(tmp_path):
    write(tmp_path / "t/1.png", [[0, 0, 1, 1]])
    write(tmp_path / "p/labels/1.png", [[1, 1, 1, 0]])
    (tmp_path / "p/prediction.json").write_text(json.dumps({"classes": ["road", "background"]}))
    result = scores.of_folder("p", tmp_path / "p", tmp_path / "t", class_names=NAMES)
    assert result.class_names == NAMES and result.counts.tolist() == [[2, 0, 0], [1, 1, 0]]
    assert "compared by name" in result.notes[0]
    with pytest.raises(UserError, match="has the class 'road', which is none of those"):
        scores.of_folder("p", tmp_path / "p", tmp_path / "t", class_names=("background", "car"))


def test_not_one_right_pixel_is_said(tmp_path):
    write(tmp_path / "t/1.png", [[0, 0]])
    write(tmp_path / "p/1.png", [[1, 1]])
    result = scores.of_folder("p", tmp_path / "p", tmp_path / "t", class_names=NAMES)
    assert "not one of 2 scored pixels is right" in result.notes[0]
