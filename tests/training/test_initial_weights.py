"""Weights that config.init gives: what of them is taken, and which are refused."""

import jax
import numpy as np
import pytest
from saved_states import converted, fresh, save, state_of, values

from dasac_jax.errors import UserError
from dasac_jax.training import initial_state


def test_given_weights_do_not_stand_in_for_an_adaptation(run, tmp_path):
    save(tmp_path / "given", 7.0, 90)
    with pytest.raises(UserError, match="run stage adapt first"):
        initial_state.handed_on(run(init=str(tmp_path / "given")), fresh, "adapt")


class TestBeforeTheFolderIsClaimed:
    def test_what_fits_passes(self, run, tmp_path):
        initial_state.check_given(run(init=""), fresh)
        save(tmp_path / "given", 7.0, 90)
        initial_state.check_given(run(init=str(tmp_path / "given")), fresh)
        save(tmp_path / "snapshot", 7.0, 0, **converted("baseline", 4))
        initial_state.check_given(run(init=str(tmp_path / "snapshot")), fresh)

    @pytest.mark.parametrize("place", ["adapt/checkpoints", "baseline/checkpoints", "checkpoints"])
    def test_a_work_directory_is_refused_with_what_to_give(self, place, run, tmp_path):
        save(tmp_path / "old" / place, 7.0, 90)
        words = rf"^config\.init: no checkpoint in {tmp_path}/old: give {tmp_path}/old/{place}$"
        with pytest.raises(UserError, match=words):
            initial_state.check_given(run(init=str(tmp_path / "old")), fresh)

    def test_a_folder_of_something_else_is_refused(self, run, tmp_path):
        (tmp_path / "photos").mkdir()
        with pytest.raises(UserError, match="photos: give a folder of checkpoints"):
            initial_state.check_given(run(init=str(tmp_path / "photos")), fresh)

    def test_other_weights_and_classes_are_refused(self, run, tmp_path):
        state = state_of(7.0).replace(params={"block1": {"kernel": np.zeros(2, np.float32)}})
        save(tmp_path / "given", None, 0, state=state, arch="fcn_vgg16_bn")
        with pytest.raises(UserError, match=r"given \(of fcn_vgg16_bn\) lacks params/layer1"):
            initial_state.check_given(run(init=str(tmp_path / "given")), fresh)
        facts = converted("baseline", 4) | {"num_classes": 7}
        save(tmp_path / "snapshot", 7.0, 0, **facts)
        with pytest.raises(UserError, match="has 7 classes, this configuration has"):
            initial_state.check_given(run(init=str(tmp_path / "snapshot")), fresh)

    def test_a_run_that_is_begun_has_its_own(self, run, tmp_path):
        save(run().newest("baseline"), 7.0, 90)
        initial_state.check_given(run(init=str(tmp_path / "gone")), fresh)


class TestGiven:
    def given(self, run, tmp_path, change):
        state = state_of(7.0)
        params = {key: dict(value) for key, value in state.params.items()}
        stats = {key: dict(value) for key, value in state.batch_stats.items()}
        change(params, stats)
        state = state.replace(params=params, batch_stats=stats)
        save(tmp_path / "given", None, 0, state=state)
        return initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)[0]

    def test_a_head_may_be_missing(self, run, tmp_path):
        state = self.given(run, tmp_path, lambda params, stats: params.pop("layer5"))
        assert values(state.params["layer1"]) == {7} and values(state.params["layer5"]) == {-1}

    def test_what_is_not_needed_is_left(self, run, tmp_path):
        extra = {"kernel": np.zeros((9, 9), np.float32)}
        state = self.given(run, tmp_path, lambda params, stats: params.update(fc=extra))
        assert jax.tree.structure(state) == jax.tree.structure(fresh())
        assert values(state.student) == {7}

    def test_a_missing_backbone_tensor_is_named(self, run, tmp_path):
        other = {"other": {"kernel": np.zeros(2, np.float32)}}
        with pytest.raises(UserError, match=r"^config\.init: .* lacks params/layer1/conv/kernel$"):
            self.given(run, tmp_path, lambda params, stats: params.update(layer1=other))

    def test_missing_statistics_are_named(self, run, tmp_path):
        other = {"other": {"mean": np.zeros(2, np.float32)}}
        with pytest.raises(UserError, match=r"lacks batch_stats/layer1/bn/mean$"):
            self.given(run, tmp_path, lambda params, stats: stats.update(layer1=other))

    @pytest.mark.parametrize("layer", ["layer1", "layer5"])
    def test_another_shape_is_named(self, layer, run, tmp_path):
        wide = {"conv": {"kernel": np.zeros((5, 6), np.float32)}}
        words = rf"holds params/{layer}/conv/kernel \(5, 6\), this configuration needs \("
        with pytest.raises(UserError, match=words):
            self.given(run, tmp_path, lambda params, stats: params.update({layer: wide}))

    def test_the_network_of_the_checkpoint_is_named(self, run, tmp_path):
        state = state_of(7.0).replace(params={"block1": {"kernel": np.zeros(2, np.float32)}})
        save(tmp_path / "given", None, 0, state=state, arch="fcn_vgg16_bn")
        with pytest.raises(UserError, match=r"given \(of fcn_vgg16_bn\) lacks params/layer1"):
            initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)

    def test_a_folder_without_checkpoint_is_refused(self, run, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=f"no checkpoint in {tmp_path}/empty"):
            initial_state.of_baseline(run(init=str(tmp_path / "empty")), fresh)


def test_given_weights_of_other_classes_are_refused(run, tmp_path):
    words = "given has 19 classes, this configuration has 4"
    save(tmp_path / "given", 7.0, 0, num_classes=19)
    for begin in (initial_state.of_baseline, initial_state.of_adapt):
        with pytest.raises(UserError, match=words):
            begin(run(init=str(tmp_path / "given"), stages="adapt"), fresh)
    for stage, begin in (
        ("baseline", initial_state.of_baseline),
        ("adapt", initial_state.of_adapt),
    ):
        path = str(tmp_path / stage)
        save(tmp_path / stage, 7.0, 0, num_classes=19, **converted(stage, 4))
        with pytest.raises(UserError, match=f"{stage} has 19 classes"):
            begin(run(init=path), fresh)
    with pytest.raises(UserError, match="baseline has 19 classes"):
        initial_state.handed_on(run(init=str(tmp_path / "baseline")), fresh, "baseline")
    # Last layers that come from no training are none of that many classes.
    save(tmp_path / "imagenet", 7.0, 0, num_classes=19, drawn=["params/layer5/conv/kernel"])
    state, _ = initial_state.of_baseline(run(init=str(tmp_path / "imagenet")), fresh)
    assert values(state.params["layer1"]) == {7} and values(state.params["layer5"]) == {-1}


OWN = {"data.source": "custom", "data.lists": "lists", "stages": "adapt"}
OWN |= {"data.classes.names": tuple("abcd"), "data.classes.palette": ((1, 2, 3),) * 4}


@pytest.mark.parametrize(("names", "words"), [("bacd", "b, a, .* order"), ("abce", "e, .*without")])
@pytest.mark.parametrize("kind", ["own", "baseline", "adapt"])
def test_given_weights_of_classes_with_other_names_are_refused(run, tmp_path, names, words, kind):
    facts = {} if kind == "own" else converted(kind, 4)
    save(tmp_path / "given", 7.0, 0, num_classes=4, class_names=list(names), **facts)
    job = run(init=str(tmp_path / "given"), **OWN)
    for begin in (initial_state.of_baseline, initial_state.of_adapt):
        with pytest.raises(UserError, match=words):
            begin(job, fresh)
    save(tmp_path / "baseline/checkpoints", 7.0, 3, class_names=list(names))  # of another run
    with pytest.raises(UserError, match="has class_names"):
        initial_state.of_baseline(job, fresh)


def test_given_weights_of_the_same_classes_are_taken(run, tmp_path, caplog):
    job = run(init=str(tmp_path / "given"), **OWN)
    save(tmp_path / "given", 7.0, 0, num_classes=4, class_names=list("abcd"))
    assert initial_state.of_baseline(job, fresh) and not caplog.records
    save(tmp_path / "given", 8.0, 1, num_classes=4)  # which does not say its classes
    assert values(initial_state.of_baseline(job, fresh)[0].params) == {8}
    assert "does not name its 4 classes" in caplog.text


def test_a_checkpoint_of_another_network_is_refused(run, tmp_path):
    state = state_of(3.0, 4)
    state = state.replace(params={"layer1": state.params["layer1"]})
    save(tmp_path / "baseline/checkpoints", None, 4, state=state)
    with pytest.raises(UserError, match="lacks params/layer5/conv/kernel"):
        initial_state.of_baseline(run(), fresh)
