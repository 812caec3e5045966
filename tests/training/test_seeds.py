"""One recipe for several seeds: what is run, what it comes to, and what is refused."""

import json
import shutil
import sys

import pytest

from dasac_jax.data.classes import own
from dasac_jax.errors import EXIT_LOST, EXIT_RESUME, UserError
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.reporting import summary
from dasac_jax.training import seeds, workdir

CLASSES = own(("road", "sky"), ((9, 8, 7), (0, 0, 200)))

# What a finished seed leaves: python -c LEAVES folder baseline's right pixels, adapted's
LEAVES = """
import sys, pathlib, shutil
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
shutil.copy(sys.argv[2], folder / "metrics.json")
"""


@pytest.fixture
def command_of(tmp_path):
    """Commands that leave a finished run's scores, which depend on the seed; and who was called."""
    called = []

    def of_seed(seed, folder, minutes):
        called.append((seed, minutes))
        leave(tmp_path / f"left{seed}", seed)
        scores = tmp_path / f"left{seed}" / "metrics.json"
        return [sys.executable, "-I", "-S", "-c", LEAVES, str(folder), str(scores)]

    of_seed.called = called
    return of_seed


def leave(folder, seed):
    """metrics.json of a run: the adaptation gains more with each seed."""
    rows = {
        "baseline": summarise([[6, 4], [4, 6]]),
        "adapted": summarise([[7 + seed, 3 - seed], [3 - seed, 7 + seed]]),
    }
    shares = {
        "baseline": {"road": 0.5, "sky": 0.5}, "adapted": {"road": 0.99, "sky": 0.01},
        "changed": [{"class": "sky", "baseline": 0.5, "adapted": 0.01, "what": "vanished"}],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    summary.write(folder, rows, CLASSES, facts={"seed": seed}, shares=shares if seed else None)


def miou(right):
    """Of two classes of ten pixels each, so many of each being right."""
    return right / (20 - right)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,1,0", "0 is given twice"),
        ("0,01,1", "1 is given twice"),
        ("0,one", "'one' is no whole number"),
        ("0,-1", "'-1' is no whole number"),
        ("0,1.5", "'1.5' is no whole number"),
        ("0,,1", "'' is no whole number"),
        ("", "'' is no whole number"),
        ("4294967296", "is no whole number"),
    ],
)
def test_what_are_no_seeds_is_refused(text, told):
    with pytest.raises(UserError, match=f"^--seeds is .*{told}"):
        seeds.parse(text, [])


def test_two_ways_to_say_the_seed_are_refused():
    assert seeds.parse("3, 1", ["--config.seeds=1"]) == (3, 1)
    for argv in (["--config.seed=1"], ["--config.seed", "1"], ["-config.seed=1"]):
        with pytest.raises(UserError, match=r"--seeds and --config\.seed both"):
            seeds.parse("0", argv)


def test_a_seeds_command_is_this_one_for_one_folder_and_seed(tmp_path):
    argv = ["--config", "c.py", "--seeds", "0,1", "--workdir=w", "--config.adapt.epochs=3"]
    command = seeds.command(argv)(1, tmp_path, 0.0)
    assert command[1:] == [
        "-m", "dasac_jax.main", "--config", "c.py", "--workdir=w", "--config.adapt.epochs=3",
        f"--workdir={tmp_path}", "--config.seed=1",
    ]  # fmt: skip
    assert seeds.command(["--seeds=0,1"])(0, tmp_path, 2.5)[3:] == [
        f"--workdir={tmp_path}", "--config.seed=0", "--config.max_minutes=2.5000",
    ]  # fmt: skip


def test_mean_and_deviation_of_the_gains(tiny_config, tmp_path, command_of, capsys):
    folder = tmp_path / "run"
    assert seeds.run(tiny_config(), folder, (0, 1, 2), command_of) == 0
    assert command_of.called == [(0, 0.0), (1, 0.0), (2, 0.0)]
    result = json.loads((folder / "metrics.json").read_text())
    gains = [miou(7 + seed) - miou(6) for seed in (0, 1, 2)]
    mean = sum(gains) / 3
    deviation = (sum((gain - mean) ** 2 for gain in gains) / 2) ** 0.5
    assert result["finished"] == [0, 1, 2] and result["unfinished"] == []
    assert [run["gain"]["miou"] for run in result["runs"].values()] == pytest.approx(gains)
    assert result["mean"]["gain"]["miou"] == pytest.approx(mean)
    assert result["deviation"]["gain"]["iou"]["sky"] == pytest.approx(deviation)
    assert result["deviation"]["baseline"]["miou"] == 0
    said = f"{100 * mean:+.1f} ± {100 * deviation:.1f}"
    texts = [(folder / name).read_text() for name in ("report.md", "report.html")]
    terminal = capsys.readouterr().out
    table = [line for line in terminal.splitlines() if line[:1] in set("┏┃┡│└")]
    assert table and max(map(len, table)) <= 80 and "…" not in terminal
    for text in (terminal, *texts):
        assert said in text and "3 of 3 seeds are finished: 0, 1, 2" in text
        assert all(f"{100 * gain:+.1f}" in text for gain in gains)
        assert "seed 1: sky: 50.0 % → 1.0 % of predicted pixels: vanished" in text
        assert "seed 0: sky: 50.0 %" not in text


def test_one_seed_claims_no_deviation(tiny_config, tmp_path, command_of, capsys):
    folder = tmp_path / "run"
    assert seeds.run(tiny_config(), folder, (2,), command_of) == 0
    result = json.loads((folder / "metrics.json").read_text())
    assert result["deviation"] is None and result["mean"]["adapted"]["miou"] == miou(9)
    texts = [(folder / name).read_text() for name in ("report.md", "report.html")]
    for text in (capsys.readouterr().out, *texts):
        assert "±" not in text and "one seed says nothing of how much" in text


def test_seeds_side_by_side_know_of_each_other(tiny_config, tmp_path, command_of):
    folder = tmp_path / "run"
    (folder / "seed7" / "baseline").mkdir(parents=True)  # begun by another command
    assert seeds.run(tiny_config(), folder, (0,), command_of) == 0
    assert seeds.run(tiny_config(), folder, (1,), command_of) == 0
    text = (folder / "report.md").read_text()
    assert "2 of 3 seeds are finished: 0, 1; not yet: 7" in text


def test_a_command_that_ends_otherwise_ends_all(tiny_config, tmp_path, command_of, capsys):
    folder = tmp_path / "run"

    def fails(code):
        return lambda seed, path, minutes: (
            [sys.executable, "-I", "-S", "-c", code]
            if seed == 1
            else command_of(seed, path, minutes)
        )

    for code, expected in (("raise SystemExit(75)", EXIT_RESUME), ("raise SystemExit(2)", 2)):
        assert seeds.run(tiny_config(), folder, (0, 1, 2), fails(code)) == expected
    killed = fails("import os; os.kill(os.getpid(), 9)")
    assert seeds.run(tiny_config(), folder, (0, 1, 2), killed) == EXIT_LOST
    assert "seed 1 was ended by SIGKILL; the same command goes on" in capsys.readouterr().err
    assert {seed for seed, _ in command_of.called} == {0}
    assert json.loads((folder / "metrics.json").read_text())["unfinished"] == [1, 2]


def test_the_time_limit_is_that_of_all_seeds(tiny_config, tmp_path, command_of, monkeypatch):
    clock = iter([0.0, 60.0, 180.0])
    monkeypatch.setattr(seeds.time, "monotonic", lambda: next(clock))
    folder = tmp_path / "run"
    config = tiny_config(max_minutes=3.0)
    assert seeds.run(config, folder, (0, 1), command_of) == EXIT_RESUME
    assert command_of.called == [(0, 2.0)]


def test_a_folder_of_another_run_is_refused(tiny_config, tmp_path, command_of):
    config, folder = tiny_config(), tmp_path / "run"
    job = workdir.Run(tiny_config(seed=1), folder / "seed1")
    workdir.claim(job, job.config)
    seeds.check(config, folder, (0, 1))
    other = tiny_config(baseline__epochs=5)
    with pytest.raises(UserError, match=r"seed1 belongs to another .*baseline\.epochs: 6 there"):
        seeds.run(other, folder, (0,), command_of)
    with pytest.raises(UserError, match="holds a run of several seeds, 1: give --seeds"):
        workdir.open_run(config, folder)
    shutil.rmtree(folder)
    workdir.claim(workdir.Run(config, folder), config)
    with pytest.raises(UserError, match=r"holds a run of one seed \(config\.json\): leave out"):
        seeds.run(config, folder, (0, 1), command_of)
    assert command_of.called == []


def test_the_command_line(whole, called, tiny, tmp_path):
    for flags, told in (
        (["--seeds", "0,0"], "0 is given twice"),
        (["--seeds", "0", "--config.seed=1"], "both say which seed"),
        (["--seeds", "0", "--process_id", "0"], "--seeds and --process_id"),
    ):
        ended = called(*tiny(tmp_path / "run"), *flags)
        assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_complete_seed_is_told_at_once(whole, called, tiny, tmp_path, monkeypatch):
    # In a process of its own: the devices are those of the finished run.
    monkeypatch.setenv(
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
    )
    shutil.copytree(whole.folder, tmp_path / "run" / "seed0")
    ended = called(*tiny(tmp_path / "run"), "--seeds", "0,")
    assert ended.code == 2
    ended = called(*tiny(tmp_path / "run"), "--seeds", "0")
    assert ended.code == 0, ended.err
    assert "1 of 1 seeds are finished: 0" in ended.out
    mine = json.loads((tmp_path / "run" / "metrics.json").read_text())
    theirs = json.loads((whole.folder / "metrics.json").read_text())
    assert mine["runs"]["0"]["adapted"]["miou"] == theirs["adapted"]["miou"]
