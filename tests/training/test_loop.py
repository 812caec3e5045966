"""The training loop with a step that is worked out by hand."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.method import trees
from dasac_jax.method.state import TrainState
from dasac_jax.runtime import data_parallel, stop_requests
from dasac_jax.training import loop
from dasac_jax.training.validation import Validation


class Recorded:
    """What a loop has recorded."""

    def __init__(self):
        self.values, self.images, self.full = [], [], False

    def add(self, step, values, pictures):
        self.values.append((step, dict(values)))
        self.images += [(step, name, picture.shape) for name, picture in pictures.items()]

    def flush(self):
        return not self.full


@pytest.fixture(autouse=True)
def explicit_transfers():
    """Nothing is sent to the devices behind one's back: it would be sent again at every step."""
    with jax.transfer_guard("disallow"):
        yield


def begin(step=0):
    return TrainState(
        params={"w": np.zeros(2, np.float32)},
        batch_stats={"mean": np.ones(1, np.float32)},
        teacher={"params": {"w": np.zeros(2, np.float32)}, "batch_stats": {}},
        class_prior=np.zeros(3, np.float32),
        opt_state=(),
        step=np.int32(step),
        seed=np.uint32(1),
    )


def add_up(state, batch):
    """w counts what the batches hold; the loss is what this one holds."""
    number = jax.lax.pmean(batch["source_image"].mean(), data_parallel.AXIS)
    finite = trees.is_finite(number)
    added = jax.tree.map(lambda w: w + number, state.params)
    params = trees.select(finite, added, state.params)
    metrics = {"loss": number, "skipped": 1 - finite}
    return state.replace(params=params, step=state.step + 1), metrics


def batches_of(numbers, asked=None, closed=None):
    """Batches that hold numbers[step]; `asked` gets what is asked for, `closed` the last words."""

    def make(first_step, num_steps):
        if asked is not None:
            asked.append((first_step, num_steps))
        try:
            for number in numbers[first_step : first_step + num_steps]:
                if isinstance(number, BaseException):
                    raise number
                yield {
                    "source_image": np.full((8, 2, 2, 3), number, np.float32),
                    "source_label": np.zeros((8, 2, 2), np.uint8),
                    "source_item": np.arange(8, dtype=np.int32),
                    "target_image": np.zeros((8, 2, 2, 3), np.uint8),
                    "names": [f"image of {number}"],
                }
        finally:
            if closed is not None:
                closed.append(True)

    return make


def plan_of(folder, **changes):
    values = {
        "name": "baseline",
        "newest": folder / "checkpoints",
        "best": folder / "best",
        "layout": data_parallel.layout("baseline", 8, 8),
        "total_steps": 8,
        "steps_per_epoch": 2,
        "first_epoch": 0,
        "network": {"arch": "none"},
        "validate": None,
    }
    intervals = {
        "log_every_steps": 4,
        "checkpoint_every_steps": 3,
        "checkpoint_every_minutes": 0,
        "max_skipped_steps": 3,
        "validate_every_epochs": 1,
    }
    intervals |= {key: changes.pop(key) for key in intervals.keys() & changes.keys()}
    return loop.Plan(**values | changes, intervals=loop.Intervals(**intervals))


def scored(miou):
    picture = np.zeros((4, 6, 3), np.uint8)
    return Validation(miou, {"selection": picture}, {"thresholds": np.full(3, miou)})


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


def kept(folder):
    return sorted(int(path.name) for path in folder.iterdir())


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


def test_goes_on_from_the_states_step(tmp_path):
    asked = []
    plan = plan_of(tmp_path)
    state = begin(5).replace(params={"w": np.full(2, 15, np.float32)})
    last = loop.train(state, add_up, batches_of(list(range(1, 9)), asked), plan, Recorded(), {})
    assert asked == [(5, 3)]
    assert last.params["w"].tolist() == [36, 36] and kept(plan.newest) == [6, 8]


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


def test_a_restart_remembers_what_was_skipped(tmp_path):
    bad = float("nan")
    numbers, plan = [1, bad, bad, bad, 5, 6, 7, 8], plan_of(tmp_path)
    stopping_after(3, numbers, plan)
    state, facts = store.restore(plan.newest, begin())
    with pytest.raises(UserError, match="steps 2 to 4 were all skipped"):
        loop.train(state, add_up, batches_of(numbers), plan, Recorded(), facts)


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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("cannot read it")])
def test_what_was_saved_survives_a_stop(error, tmp_path):
    closed = []
    plan = plan_of(tmp_path, validate_every_epochs=100)
    numbers = [1, 2, 3, 4, error]
    with pytest.raises(type(error)):
        loop.train(begin(), add_up, batches_of(numbers, closed=closed), plan, Recorded(), {})
    assert closed == [True]
    wait_for(plan.newest / "3")
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
