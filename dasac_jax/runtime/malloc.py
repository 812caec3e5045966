"""How the C library manages memory on Linux, where a step takes and frees a gigabyte at a time.

On a CPU each training step takes its temporary memory anew (0.7 GiB for ResNet-101 at 96×192). By
default the C library maps it from the operating system, which clears it in pages of 4 KiB, and
returns it at the end of the step: a tenth of the step's time.
"""

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Any

# The numbers of mallopt's parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_GPU = "/dev/nvidiactl"
_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES")
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_HUGE_PAGES_SINCE = (2, 35)  # of glibc
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def prepare() -> None:
    """Have the C library take huge pages for this command, or else keep what it frees.

    To be called by a command that was started as `python -m MODULE`, before it imports or does
    anything else: glibc decides on huge pages when a program starts, so the command starts itself
    once more, in the same process. Where that cannot be, `keep_memory` is the next best: as fast,
    but a step's memory may be taken twice, beside pieces that were freed and do not fit.
    """
    if _may_be_changed() and _can_restart() and _has_huge_pages():
        python, *arguments = sys.orig_argv
        python = sys.executable or python
        os.execve(python, [python, *arguments], os.environ | _HUGE_PAGES)
    keep_memory()


def keep_memory() -> bool:
    """Have the C library keep freed memory instead of returning it to the system.

    All threads are made to share one heap, since the heaps that threads otherwise have cannot grow
    that large. To be called before JAX computes, because its threads choose their heaps then.

    Returns whether it did so: nothing is changed where the C library is not glibc, where the
    environment already has settings for it, and where a GPU computes.
    """
    mallopt = _function("mallopt")
    if mallopt is None or not _may_be_changed():
        return False
    never = -1
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: never}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def give_back() -> None:
    """Return all memory that is free at this moment to the operating system.

    To be called where a program was compiled or a stage has ended: what they used lies in pieces,
    so that a step's memory would come on top of it. Does nothing where the C library is not glibc.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _may_be_changed() -> bool:
    """Whether nobody has chosen already, and a CPU computes."""
    if not sys.platform.startswith("linux") or any(n.startswith(_VARIABLES) for n in os.environ):
        return False
    return not os.path.exists(_GPU) or os.environ.get("JAX_PLATFORMS") == "cpu"


def _can_restart() -> bool:
    """Whether this program is `python -m MODULE`, and not one that runs such a module."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if specification is None or "-m" not in sys.orig_argv:
        return False
    return sys.orig_argv[sys.orig_argv.index("-m") + 1] == specification.name


def _has_huge_pages() -> bool:
    """Whether glibc can ask for huge pages, and the kernel gives them."""
    library = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    if library is None or tuple(map(int, library.groups())) < _HUGE_PAGES_SINCE:
        return False
    try:
        return "[never]" not in _KERNEL_SETTING.read_text()
    except OSError:
        return False


def _function(name: str) -> Any:
    """A function of glibc; None where the C library is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
