"""What is in train.log and on the terminal."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dasac_jax.errors import UserError
from dasac_jax.runtime import logs

LINE = re.compile(
    r"^baseline step (\d+)/7  [\d.e+]+ it/s  eta (\d+:\d\d:\d\d|unknown)  loss_source ([\d.]+)$"
)


def _run(workdir: Path, console: Console, initial: int = 0) -> None:
    with (
        logs.logging_to(workdir, console=console),
        logs.progress("baseline", 7, initial, log_every=3) as update,
    ):
        for step in range(initial + 1, 8):
            update(step, {"loss_source": np.float32(step + 0.25)})


def _messages(workdir: Path) -> list[str]:
    lines = (workdir / logs.LOG_FILE).read_text().splitlines()
    return [re.sub(r"^[\d-]+ [\d:]+ INFO ", "", line) for line in lines]


def test_plain_lines_on_every_nth_and_the_last_step(tmp_path):
    out = io.StringIO()
    _run(tmp_path, Console(file=out, width=40))
    found = [LINE.match(message) for message in _messages(tmp_path)]
    assert [match.group(1, 3) for match in found] == [("3", "3.25"), ("6", "6.25"), ("7", "7.25")]
    assert found[-1].group(2) == "0:00:00"
    assert out.getvalue().splitlines() == _messages(tmp_path)


def test_terminal_shows_a_bar_and_the_file_the_lines(tmp_path):
    out = io.StringIO()
    _run(tmp_path, Console(file=out, width=120, force_terminal=True))
    assert [LINE.match(message).group(1) for message in _messages(tmp_path)] == ["3", "6", "7"]
    shown = out.getvalue()
    assert "7/7" in shown and "it/s" in shown and "loss_source 7.25" in shown
    assert "baseline step" not in shown


def test_restart_appends_and_counts_from_where_it_stopped(tmp_path):
    _run(tmp_path, Console(quiet=True))
    _run(tmp_path, Console(quiet=True), initial=4)
    assert [LINE.match(m).group(1) for m in _messages(tmp_path)] == ["3", "6", "7", "6", "7"]


def test_rate_and_eta_come_from_the_clock(tmp_path, monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(logs.time, "monotonic", lambda: next(clock))
    with (
        logs.logging_to(tmp_path, console=Console(quiet=True)),
        logs.progress("adapt", 600, 80, log_every=20) as update,
    ):
        update(100, {"loss": 1.23456})
    assert _messages(tmp_path) == ["adapt step 100/600  2 it/s  eta 0:04:10  loss 1.235"]


def _clocked(tmp_path, monkeypatch, calls, *progress, **options):
    """The lines of a loop whose calls of update, (seconds, step), come at these times."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    with (
        logs.logging_to(tmp_path, console=Console(quiet=True)),
        logs.progress(*progress, **options) as update,
    ):
        for seconds, step in calls:
            now[0] = seconds
            update(step)
    return _messages(tmp_path)


def test_batches_that_step_over_the_logged_steps_give_lines_and_true_rates(tmp_path, monkeypatch):
    calls = [(100.0 * i, 4 * i) for i in range(1, 8)]  # 4 at a time, each 100 s
    assert _clocked(tmp_path, monkeypatch, calls, "weights", 28, log_every=10) == [
        "weights step 12/28  0.04 it/s  eta 0:06:40",
        "weights step 20/28  0.04 it/s  eta 0:03:20",
        "weights step 28/28  0.04 it/s  eta 0:00:00",
    ]


def test_the_last_line_has_the_rate_of_the_whole_loop(tmp_path, monkeypatch):
    calls = [(50.0, 50), (100.0, 100), (100.001, 101)]
    found = _clocked(tmp_path, monkeypatch, calls, "predict", 101)
    assert found[-1] == "predict step 101/101  1.01 it/s  eta 0:00:00"


@pytest.mark.parametrize(("total", "line"), [(7, "adapt step 4/7"), (4, "adapt step 4/4")])
def test_where_nothing_was_done_yet_no_rate_is_claimed(tmp_path, monkeypatch, total, line):
    found = _clocked(tmp_path, monkeypatch, [(9.0, 4)], "adapt", total, 4, log_every=2)
    assert [text.strip() for text in found] == [line]


def test_values_are_read_on_logged_steps_only():
    class Pending:
        reads = 0

        def __float__(self) -> float:
            Pending.reads += 1
            return 1.0

    with logs.progress("baseline", 10, log_every=5) as update:
        for step in range(1, 11):
            update(step, {"loss": Pending()})
    assert Pending.reads == 2


def test_warnings_reach_the_terminal_from_every_process(tmp_path):
    out = io.StringIO()
    with logs.logging_to(tmp_path, primary=False, console=Console(file=out)) as log:
        log.info("from the second process")
        logging.getLogger("dasac_jax.checkpoints.store").warning("checkpoint [1] is damaged")
    assert out.getvalue() == "warning: checkpoint [1] is damaged\n"
    assert list(tmp_path.iterdir()) == []


def test_log_is_released_at_the_end(tmp_path):
    for name in ("a", "b"):
        with logs.logging_to(tmp_path / name, console=Console(quiet=True)) as log:
            log.info("line of %s", name)
    assert _messages(tmp_path / "a") == ["line of a"]
    assert _messages(tmp_path / "b") == ["line of b"]


def test_on_a_full_disk_lines_are_lost_and_errors_still_raised(tmp_path):
    (tmp_path / logs.LOG_FILE).symlink_to("/dev/full")
    with pytest.raises(UserError, match="make room"), logs.logging_to(tmp_path) as logger:
        logger.info("a line")
        raise UserError("make room")


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match=r"cannot write .*file.*--workdir"),
        logs.logging_to(tmp_path / "file"),
    ):
        pass


def test_jax_is_quiet_about_devices_and_connections(caplog):
    with caplog.at_level(logging.INFO):
        logs.quiet_jax()
        for name in ("jax._src.xla_bridge", "jax._src.distributed"):
            logging.getLogger(name).info("there is no TPU")
            logging.getLogger(name).warning("there is no GPU")
    assert [record.getMessage() for record in caplog.records] == ["there is no GPU"] * 2
