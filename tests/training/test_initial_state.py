"""What a stage starts from, and what of a checkpoint goes on."""

import jax
import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.method import optim
from dasac_jax.method.state import TrainState
from dasac_jax.training import initial_state
from dasac_jax.training.workdir import Run


def state_of(value, step=0):
    """A state whose every number is `value`: a backbone of one layer and a new head."""
    params = {
        "layer1": {"conv": {"kernel": np.full((2, 3), value, np.float32)}},
        "layer5": {"conv": {"kernel": np.full((3, 4), value, np.float32)}},
    }
    batch_stats = {"layer1": {"bn": {"mean": np.full(3, value, np.float32)}}}
    opt_state = optim.create(1e-3).init(params)
    return TrainState(
        params=params,
        batch_stats=batch_stats,
        teacher={"params": params, "batch_stats": batch_stats},
        class_prior=np.full(4, value, np.float32),
        opt_state=jax.tree.map(lambda x: np.full(x.shape, value, np.float32), opt_state),
        step=np.int32(step),
        seed=np.uint32(1),
    )


def save(folder, value, step, state=None, **facts):
    manager = store.open_manager(folder)
    store.save(manager, state or state_of(value, step), metadata=facts)
    store.finish(manager)


def values(tree):
    return {x for leaf in jax.tree.leaves(tree) for x in np.ravel(leaf).tolist()}


def converted(stage, epoch):
    """Facts of a checkpoint that was converted from a PyTorch run."""
    return {"stage": stage, "epoch": epoch, "best_score": 0.6, "origin": {"kind": "any"}}


@pytest.fixture
def run(tiny_config, tmp_path, monkeypatch):
    """run(**changes): a run in tmp_path, with 50 source images."""
    monkeypatch.setattr(Run, "open", lambda self, role: range(50))
    return lambda **changes: Run(tiny_config(**changes), tmp_path)


def fresh():
    return state_of(-1.0)


class TestNotFinite:
    """A state of NaN is no start, whatever the door that it comes in by."""

    def broken(self, folder, step, **facts):
        save(folder, np.nan, step, **facts)
        return pytest.raises(UserError, match=r"holds \S+ with \d+ of \d+ numbers not finite")

    def test_given_weights(self, run, tmp_path):
        with self.broken(tmp_path / "given", 9):
            initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)

    def test_a_converted_snapshot(self, run, tmp_path):
        with self.broken(tmp_path / "given", 0, **converted("baseline", 4)):
            initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)

    def test_resuming(self, run, tmp_path):
        with self.broken(run().newest("adapt"), 9):
            initial_state.of_adapt(run(), fresh)

    def test_what_a_stage_hands_on(self, run, tmp_path):
        with self.broken(run().newest("baseline"), 9):
            initial_state.of_adapt(run(), fresh)


class TestBaseline:
    def test_from_scratch(self, run):
        state, facts = initial_state.of_baseline(run(), fresh)
        assert values(state.params) == {-1} and state.step == 0 and facts == {}

    def test_from_given_weights(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 90, epoch=12)
        state, facts = initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)
        assert values(state.student) == {7}
        # Weights and statistics alone: neither its step nor its momentum.
        assert facts == {} and state.step == 0
        assert values((state.teacher, state.class_prior, state.opt_state)) == {-1}

    def test_goes_on_from_a_converted_baseline(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("baseline", 4))
        state, facts = initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)
        assert values((state.student, state.opt_state)) == {7}
        # 50 images in batches of 8: six steps an epoch.
        assert (state.step, state.seed) == (24, run().config.seed)
        assert facts == {"first_epoch": 0, "best_score": 0.6}

    def test_a_converted_baseline_may_be_complete(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("baseline", 6))
        given = run(init=str(tmp_path / "given"))
        message = r"config\.baseline\.epochs is 6, but .*given has done 6: .* leave baseline out of"
        with pytest.raises(UserError, match=message):
            initial_state.of_baseline(given, fresh)

    @pytest.mark.parametrize("change", [{"stage": "adapt"}, {"epoch": None}])
    def test_of_other_converted_weights_only_those(self, change, run, tmp_path):
        facts = {k: v for k, v in (converted("baseline", 4) | change).items() if v is not None}
        save(tmp_path / "given", 7.0, 0, **facts)
        state, facts = initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)
        assert values(state.student) == {7} and values(state.opt_state) == {-1} and facts == {}

    def test_drawn_layers_are_drawn_anew(self, run, tmp_path):
        facts = {"origin": {}, "drawn": ["params/layer5/conv/kernel"]}
        save(tmp_path / "given", 7.0, 0, **facts)
        state, _ = initial_state.of_baseline(run(init=str(tmp_path / "given")), fresh)
        assert values(state.params["layer1"]) == {7} and values(state.params["layer5"]) == {-1}

    def test_resumed_before_all_else(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 90)
        save(tmp_path / "baseline/checkpoints", 2.0, 8, epoch=4, best_score=0.5)
        save(tmp_path / "baseline/checkpoints", 3.0, 9, epoch=4, best_score=0.5)
        save(tmp_path / "baseline/best", 4.0, 6)
        state, facts = initial_state.of_baseline(
            run(init=str(tmp_path / "given"), select="best"), fresh
        )
        assert values(state.replace(step=0.0, seed=0.0)) == {3, 0}
        assert (int(state.step), int(state.seed)) == (9, 1)
        assert (facts["epoch"], facts["best_score"]) == (4, 0.5)


class TestAdapt:
    def test_carries_weights_statistics_momentum_epochs_and_best_score(self, run, tmp_path):
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6, first_epoch=0, best_score=0.4)
        state, facts = initial_state.of_adapt(run(), fresh)
        assert values((state.params, state.batch_stats, state.opt_state)) == {3}
        assert values(state.teacher) == {3} and values(state.class_prior) == {np.float32(0.001)}
        assert state.step == 0 and state.seed == run().config.seed
        assert facts == {"first_epoch": 6, "best_score": 0.4}

    def test_takes_the_snapshot_that_is_selected(self, run, tmp_path):
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6, best_score=0.4)
        save(tmp_path / "baseline/best", 4.0, 8, epoch=4, best_score=0.4)
        state, facts = initial_state.of_adapt(run(select="best"), fresh)
        assert values(state.params) == {4} and facts["first_epoch"] == 4
        state, facts = initial_state.of_adapt(run(select="last"), fresh)
        assert values(state.params) == {3} and facts["first_epoch"] == 6

    def test_without_a_best_the_newest_is_taken(self, run, tmp_path):
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6)
        state, facts = initial_state.of_adapt(run(select="best"), fresh)
        assert values(state.params) == {3} and facts == {"first_epoch": 6, "best_score": 0.0}

    def test_resumed_before_all_else(self, run, tmp_path):
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6)
        save(tmp_path / "adapt/checkpoints", 5.0, 2, epoch=7, first_epoch=6, best_score=0.6)
        state, facts = initial_state.of_adapt(run(), fresh)
        assert values((state.student, state.teacher, state.opt_state, state.class_prior)) == {5}
        assert state.step == 2 and (facts["first_epoch"], facts["best_score"]) == (6, 0.6)

    def test_from_given_weights_where_there_is_no_baseline(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 90, epoch=12)
        state, facts = initial_state.of_adapt(
            run(init=str(tmp_path / "given"), stages="adapt"), fresh
        )
        assert values(state.student) == {7} and values(state.opt_state) == {-1}
        assert facts == {"first_epoch": 0, "best_score": 0.0}

    def test_a_converted_baseline_stands_for_one(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("baseline", 4))
        state, facts = initial_state.of_adapt(
            run(init=str(tmp_path / "given"), stages="adapt"), fresh
        )
        assert values((state.student, state.opt_state)) == {7}
        assert values(state.teacher) == {7} and values(state.class_prior) == {np.float32(0.001)}
        assert state.step == 0 and state.seed == run().config.seed
        assert facts == {"first_epoch": 4, "best_score": 0.6}

    def test_goes_on_from_a_converted_adaptation(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("adapt", 8))
        state, facts = initial_state.of_adapt(
            run(init=str(tmp_path / "given"), stages="adapt"), fresh
        )
        whole = (state.student, state.teacher, state.class_prior, state.opt_state)
        assert values(whole) == {7}
        assert (state.step, state.seed) == (48, run().config.seed)
        assert facts == {"first_epoch": 0, "best_score": 0.6}

    def test_a_converted_adaptation_may_be_complete(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("adapt", 9))
        with pytest.raises(UserError, match=r"config\.adapt\.epochs is 9, but .* has done 9: give"):
            initial_state.of_adapt(run(init=str(tmp_path / "given"), stages="adapt"), fresh)

    def test_a_baseline_of_the_run_comes_before_a_converted_adaptation(self, run, tmp_path):
        save(tmp_path / "given", 7.0, 0, **converted("adapt", 8))
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6, best_score=0.4)
        state, facts = initial_state.of_adapt(run(init=str(tmp_path / "given")), fresh)
        assert values(state.student) == {3} and facts["first_epoch"] == 6

    def test_from_nothing_is_refused(self, run, tmp_path):
        with pytest.raises(UserError, match="run stage baseline first") as caught:
            initial_state.of_adapt(run(), fresh)
        assert f"{tmp_path}/baseline/checkpoints" in str(caught.value)


def test_given_weights_do_not_stand_in_for_an_adaptation(run, tmp_path):
    save(tmp_path / "given", 7.0, 90)
    with pytest.raises(UserError, match="run stage adapt first"):
        initial_state.handed_on(run(init=str(tmp_path / "given")), fresh, "adapt")


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
