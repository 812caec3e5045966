"""The best state is on disk before the newest; what cannot be written is told and tried again."""

from __future__ import annotations

import io
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from dasac_jax.checkpoints import store, writer
from dasac_jax.errors import UserError, one_line
from dasac_jax.runtime import logs

WARNED = "cannot write step 2 to {}: File too large"


@pytest.fixture
def folders(tmp_path, small):
    """A manager of two folders, in which step 1 is the newest and the best, and these."""
    newest, best = tmp_path / "newest", tmp_path / "best"
    manager = store.open_manager(newest, best=best)
    store.save(manager, small.state(1), metadata={"score": 1}, best={"score": 1})
    store.finish(manager)
    return manager, newest, best


def _save(manager, small, step, *, best=False):
    facts = {"score": step}
    store.save(manager, small.state(step), metadata=facts, best=facts if best else None)
    return manager.background.wait()


def test_a_state_is_kept_apart_where_it_is_the_best(folders, small):
    manager, newest, best = folders
    for step in (2, 3, 4):
        assert _save(manager, small, step, best=step == 3) is None
    assert (small.names(newest), small.names(best)) == (["3", "4"], ["3"])
    store.save(manager, small.state(5), metadata=None, best={"score": 5})
    store.finish(manager)
    assert (small.names(newest), small.names(best)) == (["3", "4"], ["5"])
    small.assert_same_bits(store.restore(best, like=small.state(0))[0], small.state(5))


def test_a_full_disk(folders, small, small_files, caplog, capfd):
    """Files may not grow: as on a full disk each write fails, and no privileges are needed."""
    manager, newest, _ = folders
    small_files(1_000)
    _save(manager, small, 2)
    assert store.latest_step(newest) == store.read(newest)[0]["step"] == 1
    warned = WARNED.format(newest)
    assert f"{warned}; going on without, earlier checkpoints are kept" in caplog.text
    with pytest.raises(UserError, match=f"^{warned}; earlier checkpoints are kept: make room"):
        store.finish(manager)
    assert small.names(newest) == ["1"]
    small_files(0)
    assert _save(manager, small, 3) is None
    assert small.names(newest) == ["1", "3"]
    assert "Traceback" not in capfd.readouterr().err + caplog.text


def test_a_disk_that_fills_up_within_a_write_is_one_line(
    small, tmp_path, small_files, monkeypatch, capfd, caplog
):
    traces, screen = [], io.StringIO()
    monkeypatch.setattr(sys, "unraisablehook", traces.append)
    monkeypatch.setattr(writer, "check_room", lambda *_: None)  # there still is room when it looks
    rng = np.random.default_rng(0)
    arrays = {str(number): rng.random(20_000) for number in range(30)}
    manager = store.open_manager(tmp_path / "newest")
    with logs.logging_to(None, console=Console(file=screen, width=1000)):
        small_files(100_000)
        store.save(manager, small.state(1).replace(params=arrays), metadata={})
        assert "step 1 to" in str(manager.background.wait())
        small_files(0)
        assert screen.getvalue().startswith("warning: cannot write step 1 to ")
        assert screen.getvalue().count("\n") == 1
        assert capfd.readouterr() == ("", "") and not traces and not caplog.records


def test_the_newest_is_not_written_without_the_best_it_tells_of(folders, small, small_files):
    manager, newest, best = folders
    small_files(1_000)
    assert str(_save(manager, small, 2, best=True)) == WARNED.format(best)
    assert str(_save(manager, small, 3)) == WARNED.format(best)
    assert (small.names(newest), small.names(best)) == (["1"], ["1"])
    small_files(0)
    assert _save(manager, small, 4) is None
    assert (small.names(newest), small.names(best)) == (["1", "4"], ["2"])


@pytest.mark.parametrize("failing", ["save", "seal"])
def test_what_breaks_within_a_write_leaves_the_folder_as_it_was(
    folders, small, failing, monkeypatch
):
    manager, newest, _ = folders

    def broken(*_, **__):
        raise ValueError("cannot\nor so [os_error_code='28']")

    if failing == "save":
        save = ocp.PyTreeCheckpointHandler.finalize
        monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "finalize", broken)
    else:
        monkeypatch.setattr("dasac_jax.checkpoints.integrity.seal", broken)
    for step in (1, 2):
        message = f"cannot write step {step} to {newest}: No space left on device"
        assert str(_save(manager, small, step)) == message
        assert small.names(newest) == ["1"]
        small.assert_same_bits(store.restore(newest, like=small.state(0))[0], small.state(1))
    monkeypatch.undo()
    assert failing == "seal" or ocp.PyTreeCheckpointHandler.finalize is save
    for step in (2, 3, 4):
        assert _save(manager, small, step) is None
    assert small.names(newest)[-2:] == ["3", "4"]


def test_a_folder_that_cannot_be_written_any_more_is_told(tmp_path, small, caplog):
    manager = store.open_manager(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").touch()
    _save(manager, small, 1)
    with pytest.raises(UserError, match=r"cannot write step 1 to .*checkpoints: Not a directory"):
        store.finish(manager)
    assert "cannot write step 1" in caplog.text


def test_orbax_itself_reads_the_steps(folders, small):
    """With its own manager, that knows nothing of this package."""
    _, newest, _ = folders
    with ocp.CheckpointManager(newest) as manager:
        assert manager.all_steps() == [1]
        found = manager.restore(1, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
        assert found["metadata"]["score"] == 1
        state = manager.restore(1, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    assert state["state"]["step"] == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("Error writing: No space [spec='{\"a\": true}'] [os_error_code='28']"),
         "No space left on device"),
        (OSError(28, "No space left on device", "/x"), "No space left on device"),
        (RuntimeError("one\ntwo"), "one"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_reasons_are_one_line(error, words):
    assert one_line(error) == words
