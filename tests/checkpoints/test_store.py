"""States survive the disk bit for bit; damaged and foreign checkpoints are noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dasac_jax import __version__
from dasac_jax.checkpoints import store, writer
from dasac_jax.errors import UserError
from dasac_jax.method.state import TrainState
from dasac_jax.models.shapes import variable_shapes


def _largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_round_trip_is_bit_exact(tmp_path, small):
    facts = {"stage": "adapt", "arch": "small", "num_classes": 19, "best": {"miou": 0.5, "at": 2}}
    manager = store.open_manager(tmp_path / "run" / "checkpoints")
    store.save(manager, small.state(7), metadata=facts)
    store.finish(manager)
    state, metadata = store.restore(tmp_path / "run" / "checkpoints", like=small.state(0))
    small.assert_same_bits(state, small.state(7))
    assert metadata == {**facts, "version": __version__}


def test_64_bits_are_kept(tmp_path, small):
    state = small.state(1).replace(class_prior=np.random.default_rng(0).random(19), seed=2**40)
    manager = store.open_manager(tmp_path)
    store.save(manager, state.replace(seed=np.int64(2**40)), metadata={})
    store.finish(manager)
    small.assert_same_bits(store.restore(tmp_path, like=state)[0], state)


def test_replicated_arrays_are_stored_once_and_may_be_donated(tmp_path, small):
    devices = jax.devices()[:4]
    everywhere = NamedSharding(Mesh(np.array(devices), "d"), PartitionSpec())
    replicated = jax.device_put(small.state(1), everywhere)
    manager = store.open_manager(tmp_path)
    store.save(manager, replicated, metadata={})
    jax.tree.map(lambda leaf: leaf.delete(), replicated)
    store.finish(manager)
    state, _ = store.restore(tmp_path, like=jax.device_put(small.state(0), devices[0]))
    small.assert_same_bits(state, small.state(1))


def test_later_changes_do_not_reach_the_disk(tmp_path, small):
    changing = small.state(1)
    manager = store.open_manager(tmp_path)
    store.save(manager, changing, metadata={})
    changing.params["head"]["kernel"][:] = 0
    store.finish(manager)
    small.assert_same_bits(store.restore(tmp_path, like=small.state(0))[0], small.state(1))


def test_keeps_the_newest_steps(tmp_path, small):
    assert store.latest_step(tmp_path / "none") is None
    small.write(tmp_path, 5, 10, 20)
    assert store.latest_step(tmp_path) == 20
    assert small.names(tmp_path) == ["10", "20"]


def test_saving_an_earlier_step_replaces_later_ones(tmp_path, small):
    small.write(tmp_path, 10, 20, 30, keep=3)
    small.write(tmp_path, 20, keep=3)
    assert small.names(tmp_path) == ["10", "20"]


def test_unfinished_write_is_not_seen(tmp_path, small):
    small.write(tmp_path, 1)
    for name in ("2.orbax-checkpoint-tmp", "3.part", "4.part.orbax-checkpoint-tmp"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
    assert store.latest_step(tmp_path) == 1
    small.write(tmp_path, 5)
    assert small.names(tmp_path) == ["1", "5"]


def test_a_folder_with_a_step_cut_short_is_passed_over_and_named(tmp_path, small, caplog):
    best, newest, none = (tmp_path / name for name in ("best", "newest", "none"))
    small.write(best, 3)
    small.write(newest, 1)
    assert store.first_with_steps([none, best, newest]) == best and not caplog.messages
    (best / "3" / "files.json").unlink()  # the last that is written
    assert store.first_with_steps([none, best, newest]) == newest
    assert "best/3 is not whole and is passed over" in caplog.text
    assert store.first_with_steps([none]) is None


def test_read_gives_names_without_the_class(tmp_path, small):
    small.write(tmp_path, 4)
    tree, metadata = store.read(tmp_path)
    np.testing.assert_array_equal(
        tree["params"]["head"]["kernel"], small.state(4).params["head"]["kernel"]
    )
    assert tree["step"] == 4 and metadata["epoch"] == 4


def test_the_same_step_is_replaced(tmp_path, small):
    small.write(tmp_path, 1, 2)
    manager = store.open_manager(tmp_path)
    store.save(manager, small.state(2).replace(seed=np.uint32(7)), metadata={"epoch": 9})
    store.finish(manager)
    state, metadata = store.restore(tmp_path, like=small.state(0))
    assert (state.step, state.seed, metadata["epoch"]) == (2, 7, 9)
    assert small.names(tmp_path) == ["1", "2"]


def test_one_step_is_read_whatever_lies_beside_it(tmp_path, small):
    small.write(tmp_path, 1, 2)
    assert store.latest_step(tmp_path / "1") == 1
    assert store.facts(tmp_path / "1")["epoch"] == 1
    assert store.read(tmp_path / "1")[0]["step"] == 1
    small.assert_same_bits(store.restore(tmp_path / "1", like=small.state(0))[0], small.state(1))
    _largest_file(tmp_path / "1" / "state").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"/1 is damaged: state/.* holds other bytes.*; give another st"
    ):
        store.read(tmp_path / "1")
    with pytest.raises(UserError, match=r"no checkpoint in .*/3"):
        store.read(tmp_path / "3")


def test_nothing_left_is_an_error(tmp_path, small):
    with pytest.raises(UserError, match="no checkpoint in"):
        store.restore(tmp_path / "none", like=small.state(0))
    small.write(tmp_path, 1)
    _largest_file(tmp_path / "1" / "state").write_bytes(b"")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        store.restore(tmp_path, like=small.state(0))


def test_another_shape_is_named(tmp_path, small):
    small.write(tmp_path, 1)
    expected = r"/1 holds params/head/kernel \(3, 3, 8, 19\), this configuration needs "
    with pytest.raises(UserError, match=expected + r"\(3, 3, 8, 7\)") as caught:
        store.restore(tmp_path, like=small.state(1, classes=7))
    assert "\n" not in str(caught.value)


def test_another_network_is_named_by_its_facts(tmp_path, small):
    manager = store.open_manager(tmp_path)
    facts = {"arch": "fcn8s_vgg16", "num_classes": 7}
    store.save(manager, small.state(1, classes=7), metadata=facts)
    store.finish(manager)
    needs = {"arch": "deeplabv2_resnet101", "num_classes": 19}
    expected = (
        r"/1 has arch fcn8s_vgg16, this configuration deeplabv2_resnet101; has num_classes 7, "
        r"this configuration 19: give the configuration that it was written with$"
    )
    with pytest.raises(UserError, match=expected):
        store.restore(tmp_path, like=small.state(1), needs=needs)
    store.restore(tmp_path, like=small.state(1, classes=7), needs=facts | {"untold": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"params": {}, "opt_state": ()},
            r"holds opt_state/.*/half, which is not.*and 3 more",
        ),
        ({"class_prior": {"a": np.zeros(3)}}, "lacks class_prior/a; holds class_prior, which"),
        ({"seed": np.asarray(1, np.int32)}, "holds seed as uint32, this .* needs int32"),
    ],
)
def test_another_tree_or_type_is_named(tmp_path, change, message, small):
    small.write(tmp_path, 1)
    with pytest.raises(UserError, match=message):
        store.restore(tmp_path, like=small.state(1).replace(**change))


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot keep checkpoints in .*file"):
        store.open_manager(tmp_path / "file" / "checkpoints")


def test_without_a_copy_the_arrays_are_stored_as_they_are(tmp_path, small):
    turned = np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1).transpose(2, 3, 1, 0)
    still = np.broadcast_to(np.float32(0), (5, 3))
    state = small.state(1).replace(params={"turned": turned, "still": still}, opt_state=())
    manager = store.open_manager(tmp_path)
    store.save(manager, state, metadata={}, copy=False)
    store.finish(manager)
    small.assert_same_bits(store.restore(tmp_path, like=state)[0], state)


def test_large_arrays_lie_in_many_files(tmp_path, small):
    params = {str(i): np.random.default_rng(i).random(3 << 20, np.float32) for i in range(8)}
    state = small.state(1).replace(params=params, opt_state=())
    manager = store.open_manager(tmp_path)
    store.save(manager, state, metadata={})
    store.finish(manager)
    # Whole, the file would be written from memory.
    assert _largest_file(tmp_path).stat().st_size < 64 << 20
    small.assert_same_bits(store.restore(tmp_path, like=state)[0], state)


def test_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path, monkeypatch, small):
    small.write(tmp_path, 1)
    monkeypatch.setattr(writer, "FORMAT", 5)
    small.write(tmp_path, 2)
    monkeypatch.undo()
    expected = (
        rf"/2 has format 5, written by dasac_jax {__version__}; this is {__version__}, which "
        r"knows formats up to 4: install that version$"
    )
    for read in (store.facts, store.read):
        with pytest.raises(UserError, match=expected):
            read(tmp_path)


def test_facts_that_json_cannot_hold_fail_at_once(tmp_path, small):
    manager = store.open_manager(tmp_path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(manager, small.state(1), metadata={"score": np.float32(1)})
    store.finish(manager)


def test_facts_are_read_without_the_arrays(tmp_path, small):
    small.write(tmp_path, 1, 2)
    _largest_file(tmp_path / "2" / "state").write_bytes(b"")
    assert store.facts(tmp_path) == {"epoch": 2, "version": __version__}
    with pytest.raises(UserError, match=r"no checkpoint in .*none"):
        store.facts(tmp_path / "none")


class TestByName:
    """Without a state to fill: student, teacher and class prior of the stored network."""

    ARCH = "deeplabv2_demo"

    @pytest.fixture
    def networks(self):
        rng = np.random.default_rng(0)

        def variables():
            shapes = variable_shapes(self.ARCH, 19)
            flat = {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
            return unflatten_dict(flat, sep="/")

        return {
            "student": variables(), "teacher": variables(),
            "class_prior": rng.random(19, np.float32),
        }  # fmt: skip

    def write(self, folder, networks, **facts):
        state = TrainState(
            **networks["student"],
            teacher=networks["teacher"],
            class_prior=networks["class_prior"],
            opt_state=(np.zeros(2),),
            step=np.int32(3),
            seed=np.uint32(0),
        )
        manager = store.open_manager(folder)
        facts = {"arch": self.ARCH, "num_classes": 19} | facts
        facts = {key: value for key, value in facts.items() if value is not None}
        store.save(manager, state, metadata=facts)
        store.finish(manager)

    def test_networks(self, networks, tmp_path, small):
        self.write(tmp_path, networks)
        found, facts = store.restore(tmp_path)
        small.assert_same_bits(found, networks)
        assert facts["arch"] == self.ARCH

    def test_another_network_is_refused(self, networks, tmp_path):
        self.write(tmp_path, networks, num_classes=7)
        message = (
            r"/3 holds params/layer5/0/bias \(19,\), .* needs \(7,\).*; and 14 more: it is not "
        )
        with pytest.raises(UserError, match=message + f"{self.ARCH} for 7 classes"):
            store.restore(tmp_path)

    @pytest.mark.parametrize("part", ["params", "teacher/batch_stats"])
    def test_what_is_missing_or_too_much_is_named(self, part, networks, tmp_path):
        tree = networks["student"] if part == "params" else networks["teacher"]
        branch = tree[part.split("/")[-1]]
        branch["other"] = branch.pop("bn1")
        self.write(tmp_path, networks)
        with pytest.raises(UserError, match=f"lacks {part}/bn1/.*holds {part}/other/|and . more"):
            store.restore(tmp_path)

    @pytest.mark.parametrize("key", ["arch", "num_classes"])
    def test_a_checkpoint_of_no_known_network(self, key, networks, tmp_path):
        self.write(tmp_path, networks, **{key: None})
        with pytest.raises(UserError, match=f"/3 does not say its {key}: it holds no whole net"):
            store.restore(tmp_path)
