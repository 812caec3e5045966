"""Compiled programs are kept on disk, so that only the first start has to compile them."""

import logging
import os
import platform
import sys
import tempfile
import zlib
from pathlib import Path

import jax

_LOG = logging.getLogger(__name__)

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep_programs() -> Path | None:
    """Switch JAX's persistent compilation cache on; gives its folder, None where it is off.

    The folder is JAX_COMPILATION_CACHE_DIR (empty: no cache), otherwise the user's cache
    directory's dasac_jax/xla, a folder for each kind of processor. One that cannot be written to
    only warns.
    """
    given = os.environ.get(VARIABLE)
    if given == "":
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    folder = Path(given) if given else _user_cache() / "dasac_jax" / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _LOG.warning(
            "compiled programs are not kept: %s (set %s to another folder, or to nothing)",
            error,
            VARIABLE,
        )
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _user_cache() -> Path:
    if "XDG_CACHE_HOME" in os.environ and os.path.isabs(os.environ["XDG_CACHE_HOME"]):
        return Path(os.environ["XDG_CACHE_HOME"])
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _processor() -> str:
    """A name for this processor's abilities.

    Homes are shared between machines, and a program compiled for one processor may hold
    instructions that another does not have.
    """
    abilities = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            abilities = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        pass
    return f"{platform.machine()}-{zlib.crc32(abilities.encode()):08x}"
