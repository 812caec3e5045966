#!/usr/bin/env python
"""Kill a small run again and again and compare what it ends with to a run that was not killed.

    python scripts/torture.py --workdir runs/torture [--kills 50] [--seed 0] [--config.key=value …]

Whatever moment SIGKILL comes at: the same command, given again, has to end with the same bits.
Exit code 1 where it does not.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from dasac_jax.checkpoints import store
from dasac_jax.checkpoints.integrity import is_whole
from dasac_jax.reporting import metrics_log

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ("-m", "dasac_jax.main")  # what is killed
# Compiling is most of a start, and every program is compiled once.
TINY = {
    "demo.height": 48, "demo.width": 96, "demo.num_source": 16, "demo.num_train": 8,
    "demo.num_val": 5, "demo.num_test": 1, "data.source_size": "48,96",
    "data.target_size": "48,96", "data.selection_images": 4, "baseline.crop": "32,32",
    "baseline.source_batch": 8, "baseline.target_batch": 8, "baseline.learning_rate": 0.001,
    "baseline.epochs": 6, "adapt.crop": "32,64", "adapt.source_batch": 8, "adapt.groups": 2,
    "adapt.group_size": 4, "adapt.learning_rate": 0.001, "adapt.epochs": 10,
    "adapt.threshold_lower": 0.1, "adapt.teacher_momentum": 0.5, "adapt.teacher_every_steps": 1,
    "validate_every_epochs": 2, "checkpoint_every_steps": 3, "log_every_steps": 2,
    "loader_threads": 2,
}  # fmt: skip
CHECKPOINT, BEHIND = "a checkpoint being written", "a checkpoint just written"
# Moments in the order of a run: (name, what the log shows just before, most seconds after it).
LOGGED = (
    ("start and first compilation", r"rendering the demo", 6.0),
    ("baseline, between steps", r"baseline step (2|4|6|8|10)/", 0.4),
    ("validation of the baseline", r"baseline step (4|8)/", 0.8),
    ("from baseline to weights", r"baseline step 12: mIoU", 1.0),
    ("from weights to adaptation", r"weights step 8/", 3.0),
    ("adaptation, between steps", r"adapt step (2|4|6)/", 0.4),
    ("validation of the adaptation", r"adapt step (4|8)/", 0.8),
    ("final scores and report", r"scoring ", 2.0),
)
STALE_SECONDS = 600  # a start that has ended neither way by then hangs


@dataclass
class Kill:
    """One SIGKILL: the moment that it was aimed at, steps logged, steps kept, and the outcome."""

    moment: str
    lost: int = 0
    same: bool = False


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder for all runs")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--reference", type=Path, help="a finished run, instead of a new one")
    options, flags = parser.parse_known_args()
    if not flags:
        flags = [f"--config.{key}={value}" for key, value in TINY.items()]
    kills = torture(options.workdir, options.kills, options.seed, flags, options.reference)
    print(table(kills))
    sys.exit(0 if kills and all(kill.same for kill in kills) else 1)


def torture(
    folder: Path, count: int, seed: int, flags: list[str], reference: Path | None = None
) -> list[Kill]:
    """Kill runs until there are `count` kills; each run is brought to its end and compared."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, kills, number = random.Random(seed), [], 0
    if reference is None:
        reference = folder / "untouched"
        finish(start(reference, flags, folder / "untouched.log"))
    while len(kills) < count:
        number += 1
        run, log = folder / f"killed{number}", folder / f"killed{number}.log"
        mine = kill_often(run, flags, log, count - len(kills), rng)
        finish(start(run, flags, log))
        differing = differences(reference, run)
        for kill in mine:
            kill.same = not differing
        kills += mine
        print(f"run {number}: {len(mine)} kills, {differing or 'the same bits'}", flush=True)
        if not differing:
            shutil.rmtree(run)
    return kills


def kill_often(run: Path, flags: list[str], log: Path, most: int, rng: random.Random) -> list[Kill]:
    """Start and kill one run, at moments in their order; it may be over before the last."""
    kills = []
    for moment, ready in moments(run, rng)[:most]:
        process, before = start(run, flags, log), len(log_lines(run))
        while process.poll() is None and not ready(before):
            time.sleep(0.002)
        if process.poll() is not None:
            if process.returncode != 0:
                raise SystemExit(f"a start ended with code {process.returncode}, see {log}")
            break  # it is over
        process.send_signal(signal.SIGKILL)
        process.wait()
        if moment == CHECKPOINT and not any(unfinished(stage) for stage in run.iterdir()):
            moment = BEHIND  # what it left on disk decides, not what was seen before
        kills.append(Kill(moment, lost(run)))
        print(f"  killed: {moment}, {kills[-1].lost} steps to do again", flush=True)
    return kills


def moments(run: Path, rng: random.Random) -> list[tuple[str, Callable[[int], bool]]]:
    """Names of moments and what tells that they have come, given how long the log was before."""
    found = []
    for name, pattern, most in LOGGED:
        found.append((name, after(run, pattern, rng.uniform(0, most))))
        if name.endswith("between steps"):
            stage = run / name.split(",")[0].replace("adaptation", "adapt")
            for _ in range(2):
                found.append((CHECKPOINT, writing(stage, rng.uniform(0, 0.15))))
    return found


def after(run: Path, pattern: str, seconds: float) -> Callable[[int], bool]:
    """Whether a line of this start's log was seen `seconds` ago."""
    seen: list[float] = []

    def ready(before: int) -> bool:
        if not seen and re.search(pattern, "\n".join(log_lines(run)[before:])):
            seen.append(time.monotonic() + seconds)
        return bool(seen) and time.monotonic() >= seen[0]

    return ready


def writing(stage: Path, seconds: float) -> Callable[[int], bool]:
    """Whether a stage's checkpoint has been half written for `seconds`, and still is."""
    seen: list[float] = []

    def ready(before: int) -> bool:
        if not unfinished(stage):
            seen.clear()
        elif not seen:
            seen.append(time.monotonic() + seconds)
        return bool(seen) and time.monotonic() >= seen[0]

    return ready


def unfinished(stage: Path) -> bool:
    """Whether a stage's folder holds a checkpoint that is not, or not yet, written to its end."""
    folders = [path for name in ("checkpoints", "best") for path in stage.glob(f"{name}/*")]
    return any(not path.name.isdecimal() or not is_whole(path) for path in folders)


def start(run: Path, flags: list[str], log: Path) -> subprocess.Popen:
    """The command that a user would give."""
    environment = {
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(log.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    } | os.environ  # fmt: skip
    command = [sys.executable, *PROGRAM, "--config", "configs/demo.py"]
    with open(log, "ab") as file:
        return subprocess.Popen(
            [*command, "--workdir", str(run.absolute()), *flags],
            cwd=ROOT, env=environment, stdout=file, stderr=file,
        )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    """Wait for a start that is not killed."""
    if process.wait(STALE_SECONDS) != 0:
        raise SystemExit(f"a start ended with code {process.returncode}, see the log beside")


def log_lines(run: Path) -> list[str]:
    path = run / "train.log"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def lost(run: Path) -> int:
    """How many steps metrics.jsonl has that no checkpoint holds."""
    done: dict[str, int] = {}
    for line in metrics_log.read(run):
        done[line["stage"]] = max(done.get(line["stage"], 0), line["step"])
    return sum(
        max(0, step - (store.latest_step(run / stage / "checkpoints") or 0))
        for stage, step in done.items()
    )


def differences(reference: Path, run: Path) -> list[str]:
    """What two finished runs have not in common, bit for bit, durations left out."""
    found = []
    for stage in ("baseline", "adapt"):
        for kept in ("checkpoints", "best"):
            (ours, facts), (theirs, expected) = (
                store.read(folder / stage / kept) for folder in (run, reference)
            )
            ours, theirs = (flatten_dict(arrays, sep="/") for arrays in (ours, theirs))
            names = sorted(ours.keys() | theirs.keys())
            found += [
                f"{stage}/{kept}: {name}" for name in names
                if name not in ours or name not in theirs or not same(ours[name], theirs[name])
            ]  # fmt: skip
            found += [f"{stage}/{kept}: facts"] * (facts != expected)
    steps = [[{**line, "seconds": 0} for line in metrics_log.read(x)] for x in (run, reference)]
    found += ["metrics.jsonl"] * (json.dumps(steps[0]) != json.dumps(steps[1]))
    texts = [(folder / "weights.tsv").read_text() for folder in (run, reference)]
    found += ["weights.tsv"] * (texts[0] != texts[1])
    found += ["metrics.json"] * (scores(run) != scores(reference))
    return found


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two arrays are alike to the last bit."""
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def scores(folder: Path) -> dict[str, Any]:
    """What metrics.json holds, durations left out."""
    result = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    facts = {key: fact for key, fact in result["facts"].items() if "seconds" not in key}
    return result | {"facts": facts}


def table(kills: list[Kill]) -> str:
    """The outcome by moment, in Markdown."""
    names = [name for name, *_ in LOGGED] + [CHECKPOINT, BEHIND]
    total, same_bits = Counter(k.moment for k in kills), Counter(k.moment for k in kills if k.same)
    rows = ["| killed in | times | same bits | steps done again, at most |", "|---|---|---|---|"]
    for name in (name for name in names if total[name]):
        most = max(kill.lost for kill in kills if kill.moment == name)
        rows.append(f"| {name} | {total[name]} | {same_bits[name]} | {most} |")
    return "\n".join([*rows, f"\n{same_bits.total()} of {len(kills)}"])


if __name__ == "__main__":
    main()
