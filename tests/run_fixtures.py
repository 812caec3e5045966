"""Runs of the built-in demo, made tiny: by the command line, in this process or one of its own."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import compiling
import pytest
from absl import flags
from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
SMALL = {"adapt__threshold_lower": 0.01}  # the small network is nowhere as sure as the demo's

# The built-in demo, so small that a run is compiling and little else.
TINY = {
    "demo.height": 48, "demo.width": 96, "demo.num_source": 16, "demo.num_train": 8,
    "demo.num_val": 5, "demo.num_test": 1, "data.source_size": (48, 96),
    "data.target_size": (48, 96), "data.selection_images": 4, "baseline.crop": (32, 32),
    "baseline.source_batch": 8, "baseline.target_batch": 8, "baseline.learning_rate": 0.001,
    "baseline.epochs": 6, "adapt.crop": (32, 64), "adapt.source_batch": 8, "adapt.groups": 2,
    "adapt.group_size": 4, "adapt.learning_rate": 0.001, "adapt.epochs": 9,
    "adapt.threshold_lower": 0.1, "adapt.teacher_momentum": 0.5, "validate_every_epochs": 2,
    "checkpoint_every_steps": 5, "log_every_steps": 1, "loader_threads": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """command(flag, …): `python -m dasac_jax.main` with these flags, as a user runs it.

    Options: hook, what run_hooked.py is to do; devices, how many to simulate; small, whether the
    network is the one of run_small.py, which compiles in no time.
    """

    def run(*flags: str, hook=(), devices: int = 1, small: bool = False) -> Ended:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "XLA_FLAGS": compiling.xla_flags(devices),
        }
        program = ["-m", "dasac_jax.main"]
        if small or hook:
            script = "run_small.py" if small else "run_hooked.py"
            program = [str(ROOT / "tests" / script), *hook]
        ended = subprocess.run(
            [sys.executable, *program, *flags],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def small_network(monkeypatch) -> None:
    """In this process every architecture is the network of run_small.py."""
    import run_small

    from dasac_jax import models
    from dasac_jax.training import final_scores

    monkeypatch.setattr(models, "create_model", run_small.create_model)
    monkeypatch.setattr(final_scores, "STATISTICS_STEPS", 2)


@pytest.fixture
def called(monkeypatch, capsys) -> Callable[..., Ended]:
    """called(flag, …): the same in this process, for what ends before anything is compiled."""
    from dasac_jax import main, recipe_flags

    def run(*given: str) -> Ended:
        monkeypatch.chdir(ROOT)
        # One process, said so: JAX does not look for others once it has been used.
        argv = ["main", "--num_processes", "1", *given]
        monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks for overrides there
        flags.FLAGS.unparse_flags()
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)  # overrides of an earlier call
        capsys.readouterr()
        code = 0
        try:
            main.main(recipe_flags.parse_flags(argv))
        except SystemExit as ended:
            code = ended.code
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny() -> Callable[..., list[str]]:
    """tiny(folder, **changes): flags of the tiny demo there; keys with __ for the dots."""

    def flags(folder: Path, **changes) -> list[str]:
        values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
        overrides = [f"--config.{key}={value}" for key, value in values.items()]
        return ["--config", "configs/demo.py", "--workdir", str(folder), *overrides]

    return flags


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ConfigDict]:
    """tiny_config(**changes): the configuration that `tiny` gives on the command line."""

    def make(**changes) -> ConfigDict:
        config = runpy.run_path(str(ROOT / "configs" / "demo.py"))["get_config"]()
        config.lock()
        config.update_from_flattened_dict(
            TINY | {key.replace("__", "."): value for key, value in changes.items()}
        )
        return config

    return make


@dataclass(frozen=True)
class WholeRun:
    """The tiny demo, run in one go: its work directory, and how it ended."""

    folder: Path
    ended: Ended


@pytest.fixture(scope="session")
def whole(command, tiny, once) -> WholeRun:
    """One run of the tiny demo for all tests, which leave it as it is."""

    def make(folder: Path) -> None:
        ended = command(*tiny(folder / "run"))
        (folder / "ended.json").write_text(json.dumps(asdict(ended)), encoding="utf-8")

    folder = once("whole", make)
    ended = Ended(**json.loads((folder / "ended.json").read_text(encoding="utf-8")))
    assert ended.code == 0, ended.err
    return WholeRun(folder / "run", ended)


@pytest.fixture(scope="session")
def small_whole(whole, command, tiny, once) -> WholeRun:
    """The same run of a network that compiles in no time; its flags are `tiny(…, **SMALL)`."""

    def make(folder: Path) -> None:
        shutil.copytree(whole.folder / "data", folder / "run" / "data")
        ended = command(*tiny(folder / "run", **SMALL), small=True)
        (folder / "ended.json").write_text(json.dumps(asdict(ended)), encoding="utf-8")

    folder = once("small_whole", make)
    ended = Ended(**json.loads((folder / "ended.json").read_text(encoding="utf-8")))
    assert ended.code == 0, ended.err
    return WholeRun(folder / "run", ended)


@dataclass(frozen=True)
class UnlabelledRun:
    """A run on data whose target training images have no labels, and the keys that it read."""

    folder: Path
    ended: Ended
    keys: set[str]


@pytest.fixture(scope="session")
def unlabelled(small_whole, command, tiny, once) -> UnlabelledRun:
    """The small run on its data without target training labels, as a recipe of its own."""

    def make(folder: Path) -> None:
        shutil.copytree(small_whole.folder / "data", folder / "data")
        for labels in ("gtFine", "gtFine2"):
            shutil.rmtree(folder / "data" / "cityscapes" / labels / "train")
        recipe = folder / "recipe.py"
        recipe.write_text(_WITHOUT_DEMO, encoding="utf-8")
        changes = SMALL | {"data__selection_images": 0, "data__root": folder / "data"}
        flags = tiny(folder / "run", **changes)
        flags = ["--config", str(recipe), *(x for x in flags[2:] if "config.demo" not in x)]
        hook = ("record", str(folder / "keys.txt"))
        ended = command(*flags, hook=hook, small=True)
        (folder / "ended.json").write_text(json.dumps(asdict(ended)), encoding="utf-8")

    folder = once("unlabelled", make)
    ended = Ended(**json.loads((folder / "ended.json").read_text(encoding="utf-8")))
    assert ended.code == 0, ended.err
    keys = set((folder / "keys.txt").read_text(encoding="utf-8").split())
    return UnlabelledRun(folder / "run", ended, keys)


_WITHOUT_DEMO = """
import runpy


def get_config():
    config = runpy.run_path("configs/demo.py")["get_config"]()
    del config.demo
    return config
"""
