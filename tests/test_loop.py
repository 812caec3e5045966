"""The training loop with a step that is worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax import checkpoint, loop, parallel
from dasac_jax.errors import UserError
from dasac_jax.state import TrainState


class Recorded:
    """What a loop has recorded."""

    def __init__(self):
        self.values, self.images = [], []

    def add(self, step, values, pictures):
        self.values.append((step, dict(values)))
        self.images += [(step, name, picture.shape) for name, picture in pictures.items()]


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
    number = jax.lax.pmean(batch["source_image"].mean(), parallel.AXIS)
    params = jax.tree.map(lambda w: w + number, state.params)
    return state.replace(params=params, step=state.step + 1), {"loss": number}


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
        "layout": parallel.layout("baseline", 8, 8),
        "total_steps": 8,
        "steps_per_epoch": 2,
        "first_epoch": 0,
        "facts": {"arch": "none"},
        "log_every_steps": 4,
        "checkpoint_every_steps": 3,
        "validate_every_epochs": 1,
        "validate": None,
    }
    return loop.Plan(**values | changes)


def scored(miou):
    picture = np.zeros((4, 6, 3), np.uint8)
    return loop.Validation(miou, {"selection": picture}, {"thresholds": np.full(3, miou)})


def kept(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_trains_to_the_end_and_keeps_the_newest(tmp_path):
    asked, scalars = [], Recorded()
    numbers = [1, 2, 3, 4, 5, 6, 7, 8]
    plan = plan_of(tmp_path, total_steps=7, first_epoch=5)
    last = loop.train(begin(), add_up, batches_of(numbers, asked), plan, scalars, 0.25)
    assert asked == [(0, 7)]
    assert last.params["w"].tolist() == [28, 28] and int(last.step) == 7
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(last))
    assert kept(plan.newest) == [6, 7] and kept(plan.best) == []
    restored, facts = checkpoint.restore(plan.newest, begin())
    assert restored.params["w"].tolist() == [28, 28]
    expected = {"arch": "none", "stage": "baseline", "epoch": 8, "first_epoch": 5}
    assert facts.items() >= (expected | {"best_score": 0.25}).items()
    # Means since the last look.
    assert scalars.values == [(4, {"loss": 2.5}), (7, {"loss": 6.0})]


def test_goes_on_from_the_states_step(tmp_path):
    asked = []
    plan = plan_of(tmp_path)
    state = begin(5).replace(params={"w": np.full(2, 15, np.float32)})
    last = loop.train(state, add_up, batches_of(list(range(1, 9)), asked), plan, Recorded(), 0.0)
    assert asked == [(5, 3)]
    assert last.params["w"].tolist() == [36, 36] and kept(plan.newest) == [6, 8]


def test_validation_keeps_the_best(tmp_path):
    scores, seen, scalars = [0.2, 0.5, 0.5, 0.3], [], Recorded()

    def validate(state):
        assert isinstance(state.params["w"], np.ndarray)
        seen.append(int(state.step))
        return scored(scores[len(seen) - 1])

    plan = plan_of(tmp_path, total_steps=7, validate=validate)
    loop.train(begin(), add_up, batches_of([1] * 8), plan, scalars, 0.1)
    assert seen == [2, 4, 6, 7]
    assert kept(plan.best) == [4]
    state, facts = checkpoint.restore(plan.best, begin())
    assert int(state.step) == 4 and state.params["w"].tolist() == [4, 4]
    assert (facts["best_score"], facts["epoch"]) == (0.5, 2)
    assert checkpoint.restore(plan.newest, begin())[1]["best_score"] == 0.5
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
    loop.train(begin(), step, batches_of([1] * 8), plan, scalars, 0.0)
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
    loop.train(begin(), add_up, batches_of([1] * 8), plan, Recorded(), 0.6)
    assert kept(plan.best) == []
    assert checkpoint.restore(plan.newest, begin())[1]["best_score"] == 0.6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_naming_its_step(bad, tmp_path):
    closed = []
    numbers = [1, 2, 3, 4, bad, 6, 7, 8]
    plan = plan_of(tmp_path, log_every_steps=3, checkpoint_every_steps=2)
    with pytest.raises(UserError, match=rf"^baseline step 5: loss is {bad}; .*learning rate$"):
        loop.train(begin(), add_up, batches_of(numbers, closed=closed), plan, Recorded(), 0.0)
    assert closed == [True]
    # Step 6 would have been one; what is resumed from is sound.
    state, _ = checkpoint.restore(plan.newest, begin())
    assert int(state.step) == 4 and state.params["w"].tolist() == [10, 10]


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    def overflow(state, batch):
        state, metrics = add_up(state, batch)
        grown = jnp.where(state.step == 6, jnp.inf, state.params["w"])
        return state.replace(params={"w": grown}), metrics

    plan = plan_of(tmp_path, log_every_steps=1)
    with pytest.raises(UserError, match=r"^baseline step 6: weights are not finite; "):
        loop.train(begin(), overflow, batches_of([1] * 8), plan, Recorded(), 0.0)
    assert kept(plan.newest) == [3]
    # Not even where no loss is looked at before.
    plan = plan_of(tmp_path / "b", log_every_steps=100, checkpoint_every_steps=7)
    with pytest.raises(UserError, match=r"^baseline step 7: weights are not finite; "):
        loop.train(begin(), overflow, batches_of([1] * 8), plan, Recorded(), 0.0)
    assert kept(plan.newest) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("cannot read it")])
def test_what_was_saved_survives_a_stop(error, tmp_path):
    closed = []
    plan = plan_of(tmp_path)
    numbers = [1, 2, 3, 4, error]
    with pytest.raises(type(error)):
        loop.train(begin(), add_up, batches_of(numbers, closed=closed), plan, Recorded(), 0.0)
    assert closed == [True] and kept(plan.newest) == [3]
    state, _ = checkpoint.restore(plan.newest, begin())
    last = loop.train(state, add_up, batches_of(list(range(1, 9))), plan, Recorded(), 0.0)
    assert last.params["w"].tolist() == [36, 36]
