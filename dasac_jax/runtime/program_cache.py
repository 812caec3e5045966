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
_CHECKED = "checked"  # file whose time tells when programs were last looked through


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
    _drop_cut_off(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _drop_cut_off(folder: Path) -> None:
    """Remove programs that a killed process or a full disk left cut off, since the last time.

    JAX would complain of them, and compile, at every start: it replaces none.
    """
    stamp = folder / _CHECKED
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    try:
        stamp.touch()
        for path in folder.glob("*-cache"):
            # Not only later ones: a clock's steps are coarse, and the writer may have died slowly.
            if path.stat().st_mtime > since - 60 and _is_cut_off(path.read_bytes()):
                path.unlink()
    except OSError as error:  # another process was faster, or a disk that takes no stamp
        _LOG.debug("%s was not looked through: %s", folder, error)


def _is_cut_off(program: bytes) -> bool:
    if program[:1] != b"x":  # not what zlib writes, which JAX uses where there is no zstandard
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
