"""The command line of whatever runs a recipe: --config FILE, and overrides --config.key=value."""

import difflib
import os
import runpy
import sys
import traceback
from collections.abc import Iterable, Sequence

from absl import flags
from ml_collections import ConfigDict

from dasac_jax.config import check_keys, flatten
from dasac_jax.errors import EXIT_MISTAKE, UserError, message, one_line
from dasac_jax.files import check_reachable


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse the command line; for `absl.app.run`. A mistake ends with one line and code 2."""
    try:
        return _parse(argv)
    except (UserError, PermissionError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)


def _parse(argv: Sequence[str]) -> list[str]:
    path = _recipe_path(argv)
    if path is not None:
        config = _load(path)
        _check_overrides(argv, path, flatten(config))
        flags.FLAGS["config"].parser = _Loaded(config=config)
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl has printed its help, and calls that a failure
        sys.exit(0)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; see --help")
    return rest


class _Loaded(flags.ArgumentParser):
    """For the flag --config: the recipe as loaded already, so that its file is executed once."""

    def __init__(self, config: ConfigDict) -> None:
        self.config = config

    def parse(self, argument: str) -> ConfigDict:
        del argument  # the file that `config` is from
        self.config.lock()
        return self.config


def _recipe_path(argv: Sequence[str]) -> str | None:
    """The value of --config, the last one if there are several; None if there is none."""
    path = None
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config"):
            path = argv[i + 1] if i + 1 < len(argv) else None
        elif argument.startswith(("--config=", "-config=")):
            path = argument.split("=", 1)[1]
    return path


def _load(path: str) -> ConfigDict:
    """The configuration of a recipe's file. Raises UserError where it does not give one."""
    if not os.path.isfile(path):
        check_reachable(path)
        raise UserError(f"--config: there is no file {path}; recipes lie in configs/")
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config and get_config()
        if isinstance(config, ConfigDict):
            check_keys(config)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    except Exception as error:  # the file is the user's own, and may raise anything
        line, kind = _line(error, path), type(error).__name__
        raise UserError(f"--config {path}{line}: {kind}: {one_line(error)}") from error
    if get_config is None:
        raise UserError(f"--config: {path} defines no get_config() and so is no recipe")
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config: get_config() of {path} returns {type(config).__name__}, not a ConfigDict"
        )
    return config


def _line(error: Exception, path: str) -> str:
    """Where in a recipe's file an exception came up: ", line 12"."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f", line {lines[-1]}" if lines else ""


def _check_overrides(argv: Sequence[str], path: str, known: Iterable[str]) -> None:
    """Raise UserError for the first override of a key that the recipe lacks."""
    for argument in argv:
        name = argument.lstrip("-").removeprefix("no").split("=", 1)[0]  # --noconfig.x: false
        key = name.removeprefix("config.")
        if key != name and key not in known:
            # ml_collections' own "did you mean" looks into one section only, and names no file.
            (closest,) = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise UserError(f"--{name}: {path} has no such key; the closest is --config.{closest}")
