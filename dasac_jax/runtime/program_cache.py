"""Keeps compiled programs on disk, so that only the first start has to compile them."""

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
_CHECKED = "checked"  # an empty file; its time tells when the programs were last checked


def keep_programs() -> Path | None:
    """Switch JAX's persistent compilation cache on; returns its folder, None where it is off.

    The folder is that in JAX_COMPILATION_CACHE_DIR (empty: no cache), otherwise one for this kind
    of processor in dasac_jax/xla of the user's cache directory. Where it cannot be written, a
    warning is logged and the cache stays off.
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
    _drop_cut_off(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _drop_cut_off(folder: Path) -> None:
    """Remove programs that a killed process or a full disk has left incomplete.

    JAX would warn of each at every start and compile it again, since it never replaces a file of
    its cache. Only files written since the last such check are read.

    The lock that JAX takes with jax_compilation_cache_max_size does not help: it writes in place
    there too, and with JAX 0.10 no program is kept any more once one lacks its file of times, as
    after a kill, and as all do that were kept without this option.
    """
    stamp = folder / _CHECKED
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    try:
        stamp.touch()
        for path in folder.glob("*-cache"):
            # A minute is added, since the times of files are coarse and a process that was writing
            # at the last check may have been killed only after it.
            if path.stat().st_mtime > since - 60 and _is_cut_off(path.read_bytes()):
                path.unlink()
    except OSError as error:  # another process removed a file first, or the disk is full
        _LOG.debug("%s was not checked: %s", folder, error)


def _is_cut_off(program: bytes) -> bool:
    if program[:1] != b"x":
        # Not written by zlib, which JAX uses where the package zstandard is not installed. Of other
        # formats only empty files are recognised.
        return not program
    try:
        zlib.decompress(program)
    except zlib.error:
        return True
    return False


def _user_cache() -> Path:
    if "XDG_CACHE_HOME" in os.environ and os.path.isabs(os.environ["XDG_CACHE_HOME"]):
        return Path(os.environ["XDG_CACHE_HOME"])
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _processor() -> str:
    """A name for the set of instructions that this processor has.

    Several machines may share a home directory, and a program compiled for one processor may hold
    instructions that another does not have.
    """
    flags = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        pass
    return f"{platform.machine()}-{zlib.crc32(flags.encode()):08x}"
