"""runs.jsonl: a line for each start of a run, with everything that its result may depend on."""

import datetime
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax.errors import UserError
from dasac_jax.files import START_LOG, write_file
from dasac_jax.version import __version__

_LOG = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def append(folder: Path, config: ConfigDict) -> None:
    """Append this start to a work directory's runs.jsonl.

    Raises UserError where the file cannot be read or written.
    """
    line = {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "versions": versions(),
        "commit": commit(Path(__file__).parents[2]),
        "seed": config.seed,
        "config": recipe.flatten(config),
    }
    text = "".join(json.dumps(entry) + "\n" for entry in [*read(folder), line])
    write_file(folder / START_LOG, text)


def read(folder: Path | str) -> list[dict[str, Any]]:
    """The starts of a work directory in their order; none where it has none.

    A last line that a power cut left unfinished is passed over, with a warning. Raises UserError,
    naming the line, where another one is not as it was written.
    """
    path = Path(folder) / START_LOG
    lines = []
    try:
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        for text in content.splitlines(keepends=True):
            try:
                lines.append(dict(json.loads(text)))
            except ValueError:
                if text.endswith("\n"):
                    raise
                _LOG.warning("the last line of %s is cut off, and left out", path)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}, line {len(lines) + 1} cannot be read ({error}): remove the file"
        ) from error
    return lines


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that results may depend on."""
    found = {"dasac-jax": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def commit(root: Path) -> dict[str, Any] | None:
    """The commit of a git checkout and whether its files differ from it.

    None where the folder is no checkout, or, with a warning, where git cannot tell.
    """
    if not (root / ".git").exists():
        return None
    try:
        name = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("the git commit of %s is not known: %s", root, error)
        return None
    return {"id": name, "changed": bool(changed)}


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
