"""The training loop with a step that is worked out by hand."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.runtime import data_parallel
from dasac_jax.training import loop

SUMMING = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("summing_step.py"))))
Recorded = SUMMING.Recorded
add_up = SUMMING.add_up
batches_of = SUMMING.batches_of
begin = SUMMING.begin
kept = SUMMING.kept
plan_of = SUMMING.plan_of
scored = SUMMING.scored


@pytest.fixture(autouse=True)
def explicit_transfers():
    """Nothing is sent to the devices behind one's back: it would be sent again at every step."""
    with jax.transfer_guard("disallow"):
        yield


def test_trains_to_the_end_and_keeps_the_newest(tmp_path):
    asked, scalars = [], Recorded()
    numbers = [1, 2, 3, 4, 5, 6, 7, 8]
    plan = plan_of(tmp_path, total_steps=7, first_epoch=5)
    last = loop.train(
        begin(), add_up, batches_of(numbers, asked), plan, scalars, {"best_score": 0.25}
    )
    assert asked == [(0, 7)]
    assert last.params["w"].tolist() == [28, 28] and int(last.step) == 7
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(last))
    assert kept(plan.newest) == [6, 7] and kept(plan.best) == []
    restored, facts = store.restore(plan.newest, begin())
    assert restored.params["w"].tolist() == [28, 28]
    expected = {"arch": "none", "stage": "baseline", "epoch": 8, "first_epoch": 5}
    assert facts.items() >= (expected | {"best_score": 0.25}).items()
    # Means since the last log line.
    assert scalars.values == [(4, {"loss": 2.5}), (7, {"loss": 6.0})]


def test_what_compiling_used_is_given_back_before_the_first_step(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(data_parallel.malloc, "give_back", lambda: events.append("given back"))

    def counted(state, batch):
        events.append("traced")
        jax.debug.callback(lambda: events.append("step"), ordered=False)
        return add_up(state, batch)

    plan = plan_of(tmp_path, total_steps=3)
    loop.train(begin(), counted, batches_of([1, 2, 3], []), plan, Recorded(), {})
    jax.effects_barrier()
    devices = jax.local_device_count()
    assert events == ["traced", "given back"] + 3 * devices * ["step"]


def test_validation_keeps_the_best(tmp_path):
    scores, seen, scalars = [0.2, 0.5, 0.5, 0.3], [], Recorded()

    def validate(state):
        assert state.params["w"].is_fully_replicated  # as it lies on the devices
        seen.append(int(state.step))
        return scored(scores[len(seen) - 1])

    plan = plan_of(tmp_path, total_steps=7, validate=validate)
    loop.train(begin(), add_up, batches_of([1] * 8), plan, scalars, {"best_score": 0.1})
    assert seen == [2, 4, 6, 7]
    assert kept(plan.best) == [4]
    state, facts = store.restore(plan.best, begin())
    assert int(state.step) == 4 and state.params["w"].tolist() == [4, 4]
    assert (facts["best_score"], facts["epoch"]) == (0.5, 2)
    assert store.restore(plan.newest, begin())[1]["best_score"] == 0.5
    # All that there is to say of a step is said at once.
    assert [(step, list(values)) for step, values in scalars.values] == [
        (2, ["selection_miou", "thresholds"]),
        (4, ["loss", "selection_miou", "thresholds"]),
        (6, ["selection_miou", "thresholds"]),
        (7, ["loss", "selection_miou", "thresholds"]),
    ]
    for (_, values), score in zip(scalars.values, scores, strict=True):
        assert values["selection_miou"] == score and values["thresholds"].tolist() == [score] * 3
    assert scalars.images == [(step, "selection", (4, 6, 3)) for step in seen]


def test_a_validated_step_is_fetched_and_saved_once(tmp_path, monkeypatch):
    saved, fetched = [], []
    save, fetch = store.save, data_parallel.fetch

    def counted_save(manager, state, **facts):
        saved.append((int(state.step), facts["best"] is not None))
        save(manager, state, **facts)

    def counted_fetch(tree):
        fetched.append(tree)
        return fetch(tree)

    monkeypatch.setattr(store, "save", counted_save)
    monkeypatch.setattr(data_parallel, "fetch", counted_fetch)
    plan = plan_of(tmp_path, total_steps=4, validate=lambda state: scored(float(state.step) / 10))
    loop.train(begin(), add_up, batches_of([1] * 4), plan, Recorded(), {})
    assert saved == [(2, True), (3, False), (4, True)]
    assert len(fetched) == 3 + 1  # and what `train` returns


def test_a_best_state_is_kept_where_its_numbers_cannot_be_written(tmp_path):
    """Such a step is validated anew after a restart, so it must not be the newest one."""
    recorder, told = Recorded(), iter([False, False, True, True])
    recorder.flush = lambda: next(told)
    plan = plan_of(tmp_path, total_steps=4, validate=lambda state: scored(1 / float(state.step)))
    loop.train(begin(), add_up, batches_of([1] * 4), plan, recorder, {})
    assert (kept(plan.newest), kept(plan.best)) == ([4], [2])


def test_what_is_watched_is_recorded_with_the_losses(tmp_path):
    def step(state, batch):
        state, metrics = add_up(state, batch)
        return state.replace(class_prior=state.class_prior + jnp.arange(3)), metrics

    scalars = Recorded()
    plan = plan_of(tmp_path, watched=("class_prior",))
    loop.train(begin(), step, batches_of([1] * 8), plan, scalars, {})
    assert [number for number, _ in scalars.values] == [4, 8]
    assert [values["class_prior"].tolist() for _, values in scalars.values] == [
        [0, 4, 8],
        [0, 8, 16],
    ]


def test_what_is_no_better_than_before_is_not_kept(tmp_path):
    plan = plan_of(
        tmp_path,
        validate_every_epochs=3,
        validate=lambda state: scored(0.6),
    )
    loop.train(begin(), add_up, batches_of([1] * 8), plan, Recorded(), {"best_score": 0.6})
    assert kept(plan.best) == []
    assert store.restore(plan.newest, begin())[1]["best_score"] == 0.6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_told(bad, tmp_path, caplog):
    scalars = Recorded()
    plan = plan_of(tmp_path)
    last = loop.train(begin(), add_up, batches_of([1, 2, bad, 4, 5, 6, 7, 8]), plan, scalars, {})
    assert last.params["w"].tolist() == [33, 33] and int(last.step) == 8
    assert scalars.values == [(4, {"loss": 7 / 3, "skipped": 1}), (8, {"loss": 6.5})]
    assert "baseline: 1 of the steps up to 4 were skipped" in caplog.text


def test_too_many_skipped_in_a_row_stop_naming_step_and_files(tmp_path):
    bad, closed = float("nan"), []
    numbers = [bad, 2, bad, bad, bad, 6, 7, 8]
    plan = plan_of(tmp_path, log_every_steps=4, checkpoint_every_steps=2)
    with pytest.raises(
        UserError,
        match=r"^baseline steps 3 to 5 were all skipped \(config\.max_skipped_steps\): at step 3 "
        r"loss is nan\. It read image of nan: look at these files",
    ):
        loop.train(begin(), add_up, batches_of(numbers, closed=closed), plan, Recorded(), {})
    assert closed == [True]
    # Over log lines too, and what is resumed from is finite.
    assert store.restore(plan.newest, begin())[0].params["w"].tolist() == [8, 8]


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    def overflow(state, batch):
        state, metrics = add_up(state, batch)
        grown = jnp.where(state.step == 6, jnp.inf, state.params["w"])
        return state.replace(params={"w": grown}), metrics

    plan = plan_of(tmp_path, log_every_steps=1)
    with pytest.raises(UserError, match=r"^baseline step 6: weights are not finite; "):
        loop.train(begin(), overflow, batches_of([1] * 8), plan, Recorded(), {})
    assert kept(plan.newest) == [3, 4]
    # Not even where no loss is logged before.
    plan = plan_of(
        tmp_path / "b", log_every_steps=100, checkpoint_every_steps=7, validate_every_epochs=100
    )
    with pytest.raises(UserError, match=r"^baseline step 7: weights are not finite; "):
        loop.train(begin(), overflow, batches_of([1] * 8), plan, Recorded(), {})
    assert kept(plan.newest) == []


def test_epoch_ends_are_kept_without_validation_too(tmp_path):
    plan = plan_of(tmp_path, checkpoint_every_steps=100, total_steps=7, validate_every_epochs=3)
    loop.train(begin(), add_up, batches_of([1] * 8), plan, Recorded(), {})
    assert kept(plan.newest) == [6, 7]


def test_no_state_is_saved_ahead_of_its_numbers(tmp_path):
    recorder, plan = Recorded(), plan_of(tmp_path)

    def batches(first_step, num_steps):
        for number, batch in enumerate(batches_of(range(8))(first_step, num_steps), 1):
            recorder.full = number > 3
            yield batch

    loop.train(begin(), add_up, batches, plan, recorder, {})
    assert kept(tmp_path / "checkpoints") == [2, 3]
