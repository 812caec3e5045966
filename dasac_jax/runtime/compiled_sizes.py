"""Bounds the number of compiled programs where images have sizes of their own.

JAX compiles a program for each size and keeps them all, so that memory would grow with the number
of sizes in a folder of images.
"""

import threading
from collections.abc import Callable, Hashable

import jax

KEPT = 16


def limiter() -> Callable[[Hashable], bool]:
    """make_room(key), to be called before the program of a size is run; from any thread.

    It returns whether the key is new, so that its program has to be compiled.

    key: what a program is compiled for, such as (network, size). With the (KEPT + 1)th key all
    compiled programs of the process are dropped, those of other functions too: only this frees the
    programs that pmap has compiled. So it is nothing for a size that a training step needs.
    """
    keys: set[Hashable] = set()
    lock = threading.Lock()

    def make_room(key: Hashable) -> bool:
        with lock:
            is_new = key not in keys
            if is_new and len(keys) >= KEPT:
                keys.clear()
                jax.clear_caches()
            keys.add(key)
        return is_new

    return make_room
