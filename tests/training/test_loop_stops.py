"""The training loop stopped and started again: the result is that of one that never was."""

import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.runtime import stop_requests
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


def wait_for(path):
    """Whoever presses Ctrl-C twice does not wait for the checkpoint that is being written."""
    for _ in range(200):
        if not path.exists():
            time.sleep(0.05)
    assert path.exists()


def stopping_after(step, numbers, plan, recorder=None, facts=None, state=None):
    """Train until a stop is requested while a step is being done."""
    asked = []

    def batches(first_step, num_steps):
        for number, batch in enumerate(batches_of(numbers)(first_step, num_steps), first_step + 1):
            if number == step:
                asked.append("the test")
            yield batch

    recorder = recorder or Recorded()
    with (
        stop_requests.agreeing(lambda _: asked[0] if asked else None),
        pytest.raises(stop_requests.Stopped, match=rf"^the test \(after baseline step {step}\)$"),
    ):
        loop.train(state or begin(), add_up, batches, plan, recorder, facts or {})


def test_goes_on_from_the_states_step(tmp_path):
    asked = []
    plan = plan_of(tmp_path)
    state = begin(5).replace(params={"w": np.full(2, 15, np.float32)})
    last = loop.train(state, add_up, batches_of(list(range(1, 9)), asked), plan, Recorded(), {})
    assert asked == [(5, 3)]
    assert last.params["w"].tolist() == [36, 36] and kept(plan.newest) == [6, 8]


def test_a_restart_remembers_what_was_skipped(tmp_path):
    bad = float("nan")
    numbers, plan = [1, bad, bad, bad, 5, 6, 7, 8], plan_of(tmp_path)
    stopping_after(3, numbers, plan)
    state, facts = store.restore(plan.newest, begin())
    with pytest.raises(UserError, match="steps 2 to 4 were all skipped"):
        loop.train(state, add_up, batches_of(numbers), plan, Recorded(), facts)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("cannot read it")])
def test_what_was_saved_survives_a_stop(error, tmp_path):
    closed = []
    plan = plan_of(tmp_path, validate_every_epochs=100)
    numbers = [1, 2, 3, 4, error]
    with pytest.raises(type(error)):
        loop.train(begin(), add_up, batches_of(numbers, closed=closed), plan, Recorded(), {})
    assert closed == [True]
    wait_for(plan.newest / "3" / "files.json")
    state, _ = store.restore(plan.newest, begin())
    last = loop.train(state, add_up, batches_of(list(range(1, 9))), plan, Recorded(), {})
    assert last.params["w"].tolist() == [36, 36]


def test_a_stop_changes_nothing(tmp_path):
    numbers, records = [1, 2, 3, 4, 5, 6, 7, 8], []
    states = []
    # At every step, those that are logged, validated or saved anyway among them.
    for stops in ([], [1, 2, 3, 4, 5, 6, 7, 8], [8]):
        plan = plan_of(
            tmp_path / str(len(records)), validate=lambda state: scored(float(state.step) / 10)
        )
        recorder, state, facts = Recorded(), begin(), {}
        for step in stops:
            stopping_after(step, numbers, plan, recorder, facts, state)
            assert kept(plan.newest)[-1] == step
            state, facts = store.restore(plan.newest, begin())
        last = loop.train(state, add_up, batches_of(numbers), plan, recorder, facts)
        records.append((str(recorder.values), recorder.images))
        states.append(last.params["w"].tolist())
        assert kept(plan.best) == [8] and kept(plan.newest)[-1] == 8
        assert not store.restore(plan.newest, begin())[1]["pending"]
    assert states == [[36, 36]] * 3
    assert records[0] == records[1] == records[2]


def test_a_stop_within_validation_is_validated_later(tmp_path):
    def interrupted(state):
        raise stop_requests.Stopped("the test")

    scalars = Recorded()
    plan = plan_of(tmp_path, validate=interrupted)
    with pytest.raises(stop_requests.Stopped, match=r"^the test \(after baseline step 2\)$"):
        loop.train(begin(), add_up, batches_of([1] * 8), plan, scalars, {})
    assert scalars.values == [] and kept(plan.newest) == [2] and kept(plan.best) == []
    state, facts = store.restore(plan.newest, begin())
    plan = plan_of(tmp_path, validate=lambda state: scored(0.5), total_steps=2)
    loop.train(state, add_up, batches_of([1] * 8), plan, scalars, facts)
    assert [(step, list(values)) for step, values in scalars.values] == [
        (2, ["loss", "selection_miou", "thresholds"])
    ]
    assert kept(plan.best) == [2]


def test_checkpoints_in_time_change_nothing(tmp_path):
    recorded = []
    for minutes in (0, 1e-9):
        plan = plan_of(
            tmp_path / str(minutes), checkpoint_every_minutes=minutes, checkpoint_every_steps=100,
            validate_every_epochs=100,
        )  # fmt: skip
        with pytest.raises(UserError):
            loop.train(
                begin(), add_up, batches_of([1, 2, 3, 4, 5, UserError("no")]), plan, Recorded(), {}
            )
        assert kept(plan.newest) == ([4, 5] if minutes else [])
        state, facts = store.restore(plan.newest, begin()) if minutes else (begin(), {})
        scalars = Recorded()
        loop.train(state, add_up, batches_of(list(range(1, 9))), plan, scalars, facts)
        recorded.append(scalars.values[-1])
    assert recorded[0] == recorded[1] == (8, {"loss": 6.5})
