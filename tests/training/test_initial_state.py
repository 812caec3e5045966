"""What a stage starts from, and what of a checkpoint goes on."""

import numpy as np
import pytest
from saved_states import converted, fresh, save, values

from dasac_jax.errors import UserError
from dasac_jax.training import initial_state


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

    def test_a_best_that_is_not_whole_is_named(self, run, tmp_path, caplog):
        save(tmp_path / "baseline/checkpoints", 3.0, 12, epoch=6)
        save(tmp_path / "baseline/best", 4.0, 8, epoch=4)
        (tmp_path / "baseline/best/8/files.json").unlink()
        assert values(initial_state.of_adapt(run(select="best"), fresh)[0].params) == {3}
        assert "baseline/best/8 is not whole and is passed over" in caplog.text

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
