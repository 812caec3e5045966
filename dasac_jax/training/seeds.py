"""A recipe run once for each of several seeds, each in a process and a folder of its own."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dasac_jax.errors import EXIT_LOST, EXIT_RESUME, UserError
from dasac_jax.files import CONFIG_FILE, SEED_FOLDER, START_LOG, seed_folders
from dasac_jax.reporting import seed_page, seed_scores
from dasac_jax.runtime import children, lock
from dasac_jax.training import workdir

_FLAGS = ("--seeds", "-seeds")
_SEED_KEY = re.compile(r"--?config\.seed(=|$)")
Command = Callable[[int, Path, float], Sequence[str]]
"""Gives the command of a seed, its folder, and the minutes that it may take (0: any)."""


def parse(text: str, argv: Sequence[str]) -> tuple[int, ...]:
    """The seeds of the flag --seeds, as in "0,1,2".

    argv: the whole command line. Raises UserError for what are no whole numbers of 0 or more, for
    one given twice, and where the command line gives config.seed too.
    """
    seeds: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        if not re.fullmatch(r"[0-9]+", part) or int(part) >= 2**32:
            raise UserError(
                f"--seeds is {text!r}, and {part!r} is no whole number from 0 to 2**32 - 1: give "
                "them with commas between, as in --seeds 0,1,2"
            )
        if int(part) in seeds:
            raise UserError(f"--seeds is {text!r}: {int(part)} is given twice")
        seeds.append(int(part))
    if any(_SEED_KEY.match(argument) for argument in argv):
        raise UserError("--seeds and --config.seed both say which seed: give one of them")
    return tuple(seeds)


def command(argv: Sequence[str]) -> Command:
    """Gives the command of one seed: this one with its flags, for one folder and one seed alone."""
    kept, drop = [], False
    for argument in argv:
        if not drop and argument not in _FLAGS and not argument.startswith(("--seeds=", "-seeds=")):
            kept.append(argument)
        drop = argument in _FLAGS

    def of_seed(seed: int, folder: Path, minutes: float) -> list[str]:
        # Of a flag that is given twice, the last one counts.
        limit = [f"--config.max_minutes={minutes:.4f}"] if minutes else []
        own = [f"--workdir={folder}", f"--config.seed={seed}", *limit]
        return [sys.executable, "-m", "dasac_jax.main", *kept, *own]

    return of_seed


def run(config: ConfigDict, folder: Path, seeds: Sequence[int], command_of: Command) -> int:
    """Run the seeds one after the other, and report on all that are finished in `folder`.

    Runs that are complete are passed over by the commands themselves. Returns the exit code: 0, or
    that of the command which ended otherwise; EXIT_RESUME where a stop was requested or
    config.max_minutes, which count for all seeds together, are over. Raises UserError where the
    folder holds another run.
    """
    check(config, folder, seeds)
    began = time.monotonic()
    with children.children() as processes:
        for seed in seeds:
            minutes = config.max_minutes - (time.monotonic() - began) / 60
            if config.max_minutes and minutes <= 0:
                print(f"stopped by the time limit before seed {seed}", file=sys.stderr)
                return EXIT_RESUME
            if processes.stop is not None:
                print(f"stopped by {processes.stop.name} before seed {seed}", file=sys.stderr)
                return EXIT_RESUME
            print(f"seed {seed}: {folder / f'{SEED_FOLDER}{seed}'}", flush=True)
            limit = minutes if config.max_minutes else 0.0
            code = processes.run(command_of(seed, folder / f"{SEED_FOLDER}{seed}", limit))
            if code:
                return _code(code, seed, stopped=processes.stop is not None)
            result = report(folder, seeds)
    seed_scores.show(folder, result)
    return 0


def report(folder: Path, seeds: Sequence[int]) -> seed_scores.Result:
    """Write what all finished seeds of a folder come to; returns it.

    seeds: those that are meant to be there. Commands that run beside each other wait for one
    another, so that the last one to write knows of all.
    """
    with lock.held(folder, wait=True):
        result = seed_scores.collect(seed_folders(folder), seeds)
        seed_page.write(folder, result)
        seed_scores.write(folder, result)
    return result


def check(config: ConfigDict, folder: Path, seeds: Sequence[int]) -> None:
    """Raise UserError where a folder holds a plain run, or seeds of another configuration."""
    for name in (CONFIG_FILE, START_LOG):
        if (folder / name).exists():
            raise UserError(
                f"--workdir {folder} holds a run of one seed ({name}): leave out --seeds to go on "
                "with it, or choose another --workdir"
            )
    there = seed_folders(folder)
    for seed in sorted({*there, *seeds}):
        of_seed = config.copy_and_resolve_references()
        of_seed.seed = seed
        workdir.check_same(of_seed, folder / f"{SEED_FOLDER}{seed}")


def _code(code: int, seed: int, *, stopped: bool) -> int:
    """The exit code for a command that ended with `code`, which told why if it could."""
    if code > 0:
        return code
    name = signal.Signals(-code).name
    if stopped:  # it came before the command had begun to listen: then there is nothing to save
        print(f"stopped by {name}: the same command goes on with seed {seed}", file=sys.stderr)
        return EXIT_RESUME
    print(f"error: seed {seed} was ended by {name}; the same command goes on", file=sys.stderr)
    return EXIT_LOST
