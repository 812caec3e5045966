"""What is in TensorBoard's event files, and what a full disk does to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event

from dasac_jax.errors import UserError
from dasac_jax.runtime import tensorboard

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # 12 KB as a PNG


def _events(path: Path) -> list[Event]:
    """The events in a file: each record is length, checksum, bytes, checksum."""
    events, content = [], path.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        body, checksum = content[12 : 12 + length], content[12 + length : 16 + length]
        assert int.from_bytes(checksum, "little") == record_writer.masked_crc32c(body)
        events.append(Event.FromString(body))
        content = content[16 + length :]
    return events


def test_event_files_hold_scalars_and_pictures(tmp_path):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with tensorboard.EventWriter(tmp_path / "events") as events:
        events.add_scalars(20, {"baseline/loss_source": np.float32(1.5), "baseline/lr": 0.25})
        events.add_image("baseline/views", picture, 20)
    (file,) = (tmp_path / "events").iterdir()
    assert file.name.startswith("events.out.tfevents.")
    first, *others = _events(file)
    assert first.file_version == "brain.Event:2"
    values = [(event.step, value) for event in others for value in event.summary.value]
    points = {v.tag: (step, v.simple_value) for step, v in values if not v.HasField("image")}
    assert points == {"baseline/loss_source": (20, 1.5), "baseline/lr": (20, 0.25)}
    shapes = {v.tag: (v.image.height, v.image.width) for _, v in values if v.HasField("image")}
    assert shapes == {"baseline/views": (4, 6)}


def test_what_was_added_is_on_disk_before_the_end(tmp_path):
    events = tensorboard.EventWriter(tmp_path)
    events.add_scalars(1, {"loss": 1.0})
    (file,) = tmp_path.iterdir()
    assert [event.step for event in _events(file)] == [0, 1]
    events.close()


def test_a_restart_adds_a_file(tmp_path):
    for step in (1, 2):
        with tensorboard.EventWriter(tmp_path) as events:
            events.add_scalars(step, {"loss": 1.0})
    assert [_events(file)[-1].step for file in sorted(tmp_path.iterdir())] == [1, 2]


def test_a_disabled_writer_writes_nothing(tmp_path):
    with tensorboard.EventWriter(tmp_path / "events", enabled=False) as events:
        events.add_scalars(1, {"loss": 1.0})
        events.add_image("view", np.zeros((2, 2, 3), np.uint8), 1)
    assert not (tmp_path / "events").exists()


def test_other_pictures_are_refused(tmp_path):
    with tensorboard.EventWriter(tmp_path) as events, pytest.raises(ValueError, match="uint8"):
        events.add_image("view", np.zeros((2, 2, 3), np.float32), 1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"TensorBoard files to .*file"):
        tensorboard.EventWriter(tmp_path / "file" / "events")


def test_a_full_disk_ends_neither_the_events_nor_the_program(tmp_path, small_files, caplog):
    with tensorboard.EventWriter(tmp_path) as events:
        small_files(4096)
        for step in range(30):
            events.add_image("views", NOISE, step)
        small_files(0)
        events.add_scalars(30, {"loss": 0.5})
    assert f"cannot write TensorBoard files to {tmp_path}: " in caplog.text
    broken, newest = sorted(tmp_path.iterdir(), key=lambda path: path.name)
    assert _events(newest)[-1].summary.value[0].tag == "loss"
    assert broken.stat().st_size == 4096


def test_as_long_as_the_disk_is_full_each_step_warns_and_leaves_no_file(
    tmp_path, small_files, caplog
):
    with tensorboard.EventWriter(tmp_path) as events:
        (file,) = tmp_path.iterdir()
        small_files(file.stat().st_size + 1)
        events.add_scalars(1, {"loss": 0.5})
        small_files(1)
        for step in (2, 3):
            events.add_scalars(step, {"loss": 0.5})
    assert list(tmp_path.iterdir()) == [file]
    assert caplog.text.count("cannot write TensorBoard files") == 3


def test_pytorch_is_not_imported(torch):
    del torch  # it is installed
    code = "import sys, dasac_jax.runtime.tensorboard; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
