"""Several processes on this machine, through the command line: they train and end as one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import compiling
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from run_fixtures import SMALL

from dasac_jax.checkpoints import store
from dasac_jax.errors import EXIT_LOST, EXIT_RESUME, UserError
from dasac_jax.runtime import processes, watchdog

TESTS = Path(__file__).parents[1]
ALIKE = 1e-5  # relative: what adding in another order may change


@dataclass(frozen=True)
class Ended:
    """How a process ended; seconds counted from the end of the first one."""

    code: int
    out: str
    err: str


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run(flags, count=1, *, hooks=(), environment=(), more=(), joined=True):
    """`count` processes with these flags, to their ends.

    hooks: arguments of run_small.py by process. environment, more: variables and flags for each
    process. joined: whether they get the flags that connect them.
    """
    base = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": compiling.xla_flags(devices=1),
    }
    address, children = f"localhost:{free_port()}", []
    for i in range(count):
        call = [sys.executable, str(TESTS / "run_small.py"), *dict(hooks).get(i, ()), *flags]
        if more:
            call += more[i]
        if joined and count > 1:
            call += ["--coordinator", address, "--num_processes", str(count)]
            call += ["--process_id", str(i)]
        children.append(
            subprocess.Popen(
                call, cwd=TESTS.parent, env=base | (environment[i] if environment else {}),
                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    try:
        # The others' output is read meanwhile by threads, so that none waits for a full pipe.
        with ThreadPoolExecutor() as pool:
            said = list(pool.map(lambda child: child.communicate(timeout=300), children))
        return [Ended(child.returncode, *text) for child, text in zip(children, said, strict=True)]
    finally:
        for child in children:
            child.kill()


def lines(folder):
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def assert_alike(ours, theirs):
    """The same numbers at every step, the same weights of the images, the same last states."""
    found, wanted = lines(ours), lines(theirs)
    assert [(x["stage"], x["step"]) for x in found] == [(x["stage"], x["step"]) for x in wanted]
    for x, y in zip(found, wanted, strict=True):
        assert x["values"].keys() == y["values"].keys()
        for name in y["values"]:
            numbers = (np.array(line["values"][name], float) for line in (x, y))
            np.testing.assert_allclose(*numbers, rtol=ALIKE, atol=1e-12, err_msg=f"{y} {name}")
    assert (ours / "weights.tsv").read_text() == (theirs / "weights.tsv").read_text()
    for stage in ("baseline", "adapt"):
        states = (store.read(folder / stage / "checkpoints")[0] for folder in (ours, theirs))
        mine, other = (flatten_dict(state, sep="/") for state in states)
        assert mine.keys() == other.keys() and mine["step"] == other["step"] > 0
        for name in other:
            apart = np.linalg.norm(np.float64(mine[name]) - np.float64(other[name]))
            assert apart <= ALIKE * np.linalg.norm(np.float64(other[name])), f"{stage} {name}"


@dataclass(frozen=True)
class Runs:
    """The run of `small_whole`, by one process, and the same that is started three times: by two
    processes, of which one is killed, by one, which is asked to stop, and by two, which complete
    it.
    """

    alone: Path
    pair: Path
    starts: tuple[tuple[Ended, ...], ...]  # of the second run, in their order


@pytest.fixture(scope="module")
def runs(small_whole, tiny, tmp_path_factory):
    pair = tmp_path_factory.mktemp("cluster") / "pair"
    flags = tiny(pair, **SMALL)
    starts = (
        # Killed before step 11; the checkpoint of step 8 is there, that of step 10 on its way.
        run(flags, 2, hooks={1: ("interrupt", "baseline", "11", str(int(signal.SIGKILL)))}),
        run(flags, 1, hooks={0: ("interrupt", "baseline", "12", str(int(signal.SIGTERM)))}),
        run(flags, 2),
    )
    return Runs(small_whole.folder, pair, tuple(tuple(ended) for ended in starts))


def test_when_one_is_killed_the_other_ends_with_a_message(runs):
    left, killed = runs.starts[0]
    assert killed.code == -signal.SIGKILL
    assert left.code == EXIT_LOST == 76
    # Where it waits for the other's share of a checkpoint no connection breaks: it notices silence.
    assert re.fullmatch(
        r"error: (lost the connection to another process .*|process 1 has given no sign of life "
        r"for 30 s); the same command goes on\n",
        left.err,
    )
    assert "Traceback" not in left.out


def test_what_two_saved_is_restored_by_one_and_the_other_way_round(runs):
    (one,), two = runs.starts[1:]
    assert one.code == EXIT_RESUME and re.search(r"resuming after step (8|10)\b", one.out)
    assert [ended.code for ended in two] == [0, 0], two[0].err + two[1].err
    assert "baseline: resuming after step 12" in two[0].out
    assert_alike(runs.pair, runs.alone)


def test_checkpoints_are_written_by_all(runs, tmp_path, caplog):
    steps = sorted((runs.pair / "adapt" / "checkpoints").iterdir(), key=lambda path: path.name)
    for step in steps:
        sizes = [
            sum(path.stat().st_size for path in (step / share).rglob("*") if path.is_file())
            for share in ("state/ocdbt.process_0", "state/ocdbt.process_1")
        ]
        assert min(sizes) > 0.3 * max(sizes)
    # Damage to what the second one wrote is found too.
    copy = shutil.copytree(steps[0].parent, tmp_path / "checkpoints")
    newest = copy / str(store.latest_step(copy))
    second = newest / "state" / "ocdbt.process_1"
    content = max(second.rglob("*"), key=lambda path: path.stat().st_size)
    content.write_bytes(content.read_bytes()[:-1])
    assert store.facts(copy)["stage"] == "adapt"
    assert store.read(copy)[0]["step"] < int(newest.name)
    assert f"{newest} is damaged: state/ocdbt.process_1/" in caplog.text


def test_only_the_first_process_prints_and_reports(runs):
    first, second = runs.starts[-1]
    assert "mean IoU" in first.out
    assert "step" not in second.out and not second.err
    assert not [path for path in runs.pair.iterdir() if path.name.startswith("seen-by-all")]
    result, wanted = (
        json.loads((folder / "metrics.json").read_text()) for folder in (runs.pair, runs.alone)
    )
    assert result["facts"]["device"].startswith("2 ×")
    for name in ("source only", "baseline", "adapted", "teacher"):
        assert result[name]["miou"] == pytest.approx(wanted[name]["miou"], rel=1e-3)


def test_slurm_is_recognised_and_a_mistake_of_one_ends_both(tiny, tmp_path):
    slurm = {
        "SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": str(free_port()),
    }  # fmt: skip
    flags = tiny(tmp_path / "run", stages="baseline")
    ended = run(
        flags, 2, joined=False,
        environment=[slurm | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)],
        more=[[], ["--config.seed=1"]],
    )  # fmt: skip
    message = "process 1 was started with another configuration than process 0"
    assert [x.code for x in ended] == [2, 2], ended
    assert ended[1].err.startswith(f"error: {message}")
    assert f"error: process 1 has ended ({message}" in ended[0].err
    assert not any("Traceback" in x.err for x in ended) and not (tmp_path / "run").exists()


def test_a_work_directory_that_is_not_shared_is_refused(tiny, tmp_path):
    more = [["--workdir", str(tmp_path / host)] for host in ("here", "there")]
    ended = run(tiny(tmp_path, stages="baseline"), 2, more=more)
    assert [x.code for x in ended] == [2, 2], ended
    assert ended[1].err.startswith(f"error: --workdir {tmp_path / 'there'} of process 1 on ")
    assert "is not that of process 0" in ended[1].err and "process 1 has ended" in ended[0].err
    assert not (tmp_path / "there").exists() and not (tmp_path / "here" / "config.json").exists()
    assert not list((tmp_path / "here").glob("seen-by-all*"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("host:1234", None, None), "missing: --num_processes and --process_id"),
        ((None, 2, 1), "missing: --coordinator"),
        ((None, 2, None), "missing: --coordinator and --process_id"),
        (("host", 2, 0), "--coordinator is 'host': HOST:PORT"),
        (("host:port", 2, 0), "--coordinator is 'host:port': HOST:PORT"),
        (("host:70000", 2, 0), "HOST:PORT"),
        (("host:1234", 2, 2), "--process_id is 2: a number from 0 to 1"),
    ],
)
def test_flags_that_cannot_be_are_refused(given, words):
    with pytest.raises(UserError, match=re.escape(words)):
        processes.join(*given)


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is not free"):
            processes.join(f"localhost:{port}", 2, 0)


def test_a_coordinator_that_does_not_answer_ends_the_program(tmp_path):
    program = (
        "from dasac_jax.runtime import processes; processes._CONNECT_SECONDS = 0.5; "
        f"processes.join('localhost:{free_port()}', 2, 1)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TESTS.parent, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert re.fullmatch(
        r"error: the coordinator localhost:\d+ cannot be reached within 0\.5 s: .*\n", ended.stderr
    )


def test_a_single_process_asks_no_other(tmp_path):
    processes.join(num_processes=1)
    assert processes.is_first() and not watchdog.is_on()
    assert processes.from_first(lambda: [1]) == [1]
    state = object()
    assert processes.state_from_first(lambda: (state, {"a": 1}), None) == (state, {"a": 1})
    rows = np.arange(6).reshape(3, 2)
    assert processes.gather(rows, 3) is rows and processes.total(rows) is rows
    processes.check_alike("a", "word")
    processes.check_shared(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert watchdog.stop_request("SIGTERM") == "SIGTERM"
    assert watchdog.stop_request(None) is None


@pytest.mark.parametrize("number", [1, 2, 3, 8])
@pytest.mark.parametrize(("count", "least"), [(0, 1), (1, 1), (5, 1), (5, 4), (16, 3), (17, 1)])
def test_parts_hold_everything_once_and_the_first_the_least(number, count, least, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: number)
    parts = []
    for i in range(number):
        monkeypatch.setattr(jax, "process_index", lambda i=i: i)
        parts.append(processes.part_of(count, least))
    assert [i for part in parts for i in part] == list(range(count))
    assert len(parts[0]) >= min(least, count)
    assert max(len(part) for part in parts) <= max(least, -(-count // number))
