"""Whether memory that was freed stays with the process, on Linux."""

import ctypes
import os
import sys

# The numbers of mallopt's parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_GPU = "/dev/nvidiactl"
_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Have the C library keep freed memory instead of returning it to the system.

    On a CPU each step allocates its temporary memory anew (1.5 GiB for ResNet-101 at 96×192). By
    default the C library maps it from the operating system, which clears it page by page, and
    returns it at the end of the step: a tenth of the step's time. All threads are made to share
    one heap, since the heaps that threads otherwise have cannot grow that large. To be called
    before JAX computes, because its threads choose their heaps then.

    Returns whether it did so: nothing is changed where the C library is not glibc, where the
    environment already has settings for it, and where a GPU computes.
    """
    if not sys.platform.startswith("linux") or any(n.startswith(_VARIABLES) for n in os.environ):
        return False
    if os.path.exists(_GPU) and os.environ.get("JAX_PLATFORMS") != "cpu":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    never = -1
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: never}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def give_back() -> bool:
    """Return free memory to the operating system; returns whether there was any.

    Compiling leaves some that lies in pieces, into which what a program needs does not fit. Nothing
    is done where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and trim(0) == 1
