"""The evaluations of the report, done over again."""

import json
import logging
import shutil

import jax
import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.image.normalise import normalise
from dasac_jax.method.steps import predict_step
from dasac_jax.training import final_scores, from_config
from dasac_jax.training.workdir import Run


@pytest.fixture
def run(whole, tiny_config, tmp_path):
    return Run(tiny_config(data__root=str(whole.folder / "data")), tmp_path)


def scores_of(predict, variables, pairs):
    """IoU by class, and pixel accuracy, image by image and class by class."""
    right, either, correct, known = np.zeros(19), np.zeros(19), 0, 0
    truths = np.zeros(19)
    for index in range(len(pairs)):
        pair = pairs[index]
        labels = np.asarray(predict(variables, normalise(pair["image"][None])))[0]
        valid = pair["label"] != 255
        correct += (labels[valid] == pair["label"][valid]).sum()
        known += valid.sum()
        for c in range(19):
            ours, theirs = (labels == c) & valid, pair["label"] == c
            right[c] += (ours & theirs).sum()
            either[c] += (ours | theirs).sum()
            truths[c] += theirs.sum()
    iou = [r / e if e else None for r, e in zip(right, either, strict=True)]
    return iou, correct / known, truths


def talkative(config, seed):
    """A state whose student and teacher predict many classes, each in its own way."""
    fresh = jax.eval_shape(lambda: from_config.create_state(config, "adapt"))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key if hasattr(path[-1], "key") else ""
        if name == "kernel":
            values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        else:
            values = np.full(leaf.shape, name in ("scale", "var"))
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, fresh).replace(step=np.int32(6))


def test_scores_are_those_of_the_checkpoint(run, capsys, caplog):
    state = talkative(run.config, seed=2)
    manager = store.open_manager(run.newest("adapt"))
    store.save(manager, state, metadata={})
    store.finish(manager)
    (run.folder / "report.html").write_text("of earlier checkpoints")
    final_scores.report_run(run)

    result = json.loads((run.folder / "metrics.json").read_text())
    assert list(result) == ["adapted", "teacher", "classes", "left_out", "facts"]
    assert result["facts"]["steps"] == {"adapt": 6} and "teacher" in capsys.readouterr().out
    model = from_config.create_model(run.config)
    predict = jax.jit(lambda variables, images: predict_step(variables, images, model=model)[0])
    for name, variables in (("adapted", state.student), ("teacher", state.teacher)):
        iou, accuracy, truths = scores_of(predict, variables, run.open("val"))
        assert sum(value > 0.001 for value in iou if value) >= 3
        reported = list(result[name]["iou"].values())
        for c in np.flatnonzero(truths):
            # A program compiled otherwise may settle a tie between classes the other way.
            assert reported[c] == pytest.approx(iou[c], abs=1e-3), (name, c)
        assert result[name]["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-3)
    assert result["adapted"] != result["teacher"]
    page = (run.folder / "report.html").read_text()
    assert f"<strong>{100 * result['adapted']['miou']:.1f}</strong>" in page
    assert "of earlier checkpoints" not in page
    # There is neither a baseline nor what one predicted.
    report = (run.folder / "report.md").read_text()
    assert "target images were drawn: uniformly, there being no weights.tsv" in report
    assert "vanished classes: not looked for" in report
    assert "whether a class has vanished is not known" in caplog.text


def test_nothing_to_report(run, caplog):
    with caplog.at_level(logging.INFO):
        final_scores.report_run(run)
    assert "nothing to report yet" in caplog.text
    assert not list(run.folder.iterdir())


def test_a_damaged_metrics_file_is_refused_before_anything_is_scored(whole, run, monkeypatch):
    shutil.copytree(whole.folder / "adapt", run.folder / "adapt")
    (run.folder / "metrics.jsonl").write_text('{"stage": "adapt"\n{"stage": "adapt", "step": 9}\n')
    monkeypatch.setattr(final_scores.scoring, "scorer", lambda _: pytest.fail("scored"))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is not as it was written"):
        final_scores.report_run(run)


def test_a_report_of_these_checkpoints_is_shown_as_it_is(whole, run, capsys):
    for name in ("metrics.json", "report.md", "baseline", "adapt"):
        source, target = whole.folder / name, run.folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    content = json.loads((run.folder / "metrics.json").read_text())
    assert "target images were drawn" not in content["facts"]  # it has its weights
    assert "vanished classes" not in content["facts"]
    content["adapted"]["miou"] = 0.123456
    (run.folder / "metrics.json").write_text(json.dumps(content))
    final_scores.report_run(run)
    said = capsys.readouterr().out
    assert "12.3" in said and str(run.folder / "report.html") in said
    assert json.loads((run.folder / "metrics.json").read_text()) == content
    # A run from before there was a page, or stopped before it was written, gets one.
    page = (run.folder / "report.html").read_text()
    assert "<strong>12.3</strong>" in page
    (run.folder / "report.html").write_text("as it is")
    final_scores.report_run(run)
    assert (run.folder / "report.html").read_text() == "as it is"
