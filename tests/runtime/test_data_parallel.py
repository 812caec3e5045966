"""How batches are divided among devices and processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.runtime import data_parallel


def layout_of(process, processes, devices, *, source=8, groups=2, size=4):
    return data_parallel.Layout(source, groups, size, devices, devices // processes, process)


def rows_of(plan):
    """The loader's part: this process's rows of a global batch whose images hold their row."""
    rows, groups = np.array(plan.source_rows), np.array(plan.target_rows)
    return {
        "source_image": np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 3, 3)),
        "source_label": np.broadcast_to(rows[:, None, None], (len(rows), 2, 3)),
        "source_item": rows.astype(np.int32),
        "target_image": np.broadcast_to(groups[:, None, None, None], (len(groups), 4, 5, 3)),
        "target_item": groups.astype(np.int32),
        "names": ["x"] * (len(rows) + len(groups)),
    }


@pytest.mark.parametrize(
    ("processes", "devices", "groups", "size"),
    [
        (1, 1, 2, 4), (1, 2, 2, 4), (1, 4, 2, 4), (1, 8, 2, 4), (2, 4, 2, 4), (2, 8, 2, 4),
        (4, 4, 2, 4), (2, 4, 1, 4), (4, 8, 1, 8), (1, 4, 8, 1), (2, 2, 8, 1), (2, 2, 4, 2),
    ],
)  # fmt: skip
def test_every_row_and_view_is_on_one_device_with_its_image(processes, devices, groups, size):
    source, views = [], []
    for process in range(processes):
        plan = layout_of(process, processes, devices, groups=groups, size=size)
        shards = data_parallel.shard(rows_of(plan), plan)
        assert "names" not in shards
        assert {len(value) for value in shards.values()} == {devices // processes}
        for device in range(devices // processes):
            shard = {key: value[device] for key, value in shards.items()}
            source += shard["source_item"].tolist()
            for key in ("source_image", "source_label"):
                assert (shard["source_item"] == shard[key].reshape(len(shard[key]), -1).T).all()
            view = shard["target_view"]
            assert len(view) == plan.views == groups * size // devices
            # This is how the training step finds a view's image.
            image = shard["target_image"][view // size - view[0] // size]
            assert (view // size == image.reshape(len(view), -1).T).all()
            assert sorted(set(view // size)) == shard["target_item"].tolist()
            views += view.tolist()
    assert source == list(range(8)) and views == list(range(groups * size))
    assert shards["target_view"].dtype == shards["target_item"].dtype == np.int32


def test_rows_of_the_second_of_two_processes():
    plan = layout_of(1, 2, 4)
    assert plan.source_rows == range(4, 8) and plan.target_rows == range(1, 2)
    assert plan.local_views.tolist() == [[4, 5], [6, 7]]
    # A group that spans the processes is read by both.
    plans = [layout_of(process, 2, 4, groups=1) for process in range(2)]
    assert [plan.target_rows for plan in plans] == [range(1)] * 2
    assert [plan.local_views.tolist() for plan in plans] == [[[0], [1]], [[2], [3]]]


def test_all_devices_of_this_process_by_default():
    plan = data_parallel.layout("adapt", 8, 2, 4)
    assert (plan.devices, plan.local_devices, plan.process) == (8, 8, 0)
    assert data_parallel.layout("adapt", 8, 2, 4, devices=4, local_devices=2).views == 2


@pytest.mark.parametrize(
    ("arguments", "devices", "words"),
    [
        (("baseline", 12, 8), 8, "8 devices cannot share 12 source images and 8 target images; "
         "device counts that work: 1, 2, 4 ("),
        (("adapt", 8, 2, 4), 3, "8 source images and 2 groups of 4 target views; "
         "device counts that work: 1, 2, 4, 8 ("),
        # Four devices would hold one and a half groups each.
        (("adapt", 12, 3, 4), 4, "device counts that work: 1, 3, 6, 12 ("),
        (("adapt", 8, 2, 3), 4, "device counts that work: 1, 2 ("),
        (("baseline", 7, 5), 2, "device counts that work: 1 ("),
    ],
)  # fmt: skip
def test_batches_that_the_devices_do_not_divide_are_refused(arguments, devices, words):
    with pytest.raises(UserError) as caught:
        data_parallel.layout(*arguments, devices=devices)
    assert str(caught.value).startswith(f"config.{arguments[0]}: {devices} devices")
    assert words in str(caught.value)
    # Every count that is named does work.
    for count in str(caught.value).split("work: ")[1].split(" (")[0].split(", "):
        data_parallel.layout(*arguments, devices=int(count), local_devices=int(count))


def test_replicate_and_fetch_give_back_the_same_bits():
    tree = {
        "a": np.array([np.nan, -0.0, 1e-45], np.float32),
        "b": [np.arange(6).reshape(2, 3), np.uint32(2**32 - 1)],
        "empty": {},
    }
    replicated = data_parallel.replicate(tree)
    for leaf in jax.tree.leaves(replicated):
        assert len(leaf.addressable_shards) == 8 and leaf.is_fully_replicated
    fetched = data_parallel.fetch(replicated)
    assert jax.tree.structure(fetched) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(fetched), jax.tree.leaves(tree), strict=True):
        assert isinstance(ours, np.ndarray)
        assert ours.tobytes() == np.asarray(theirs).astype(ours.dtype).tobytes()


def test_a_step_sees_its_shard_and_the_mean_of_all():
    plan = data_parallel.layout("adapt", 8, 2, 4)

    def step(state, batch):
        own = batch["source_image"].astype(jnp.float32).mean()
        mean = jax.lax.pmean(own, data_parallel.AXIS)
        view = jax.lax.pmax(batch["target_view"].max(), data_parallel.AXIS)
        return state + mean, {"mean": mean, "view": view}

    step = data_parallel.data_parallel(step)
    state = data_parallel.replicate(np.float32(1))
    batch = data_parallel.shard(rows_of(plan), plan)
    for _ in range(2):
        state, metrics = step(state, batch)
    assert data_parallel.fetch(state).tolist() == 1 + 2 * 3.5
    assert state.shape == ()
    assert {np.asarray(shard.data).item() for shard in state.addressable_shards} == {8.0}
    assert data_parallel.first(metrics["mean"]) == 3.5 and data_parallel.first(metrics["view"]) == 7
    assert data_parallel.first(state) == 8


def test_over_local_devices_keeps_the_shards_apart():
    double = data_parallel.over_local_devices(lambda variables, batch: variables * batch)
    result = double(np.float32(2), np.arange(16, dtype=np.float32).reshape(8, 2))
    assert np.asarray(result).tolist() == (2 * np.arange(16).reshape(8, 2)).tolist()
