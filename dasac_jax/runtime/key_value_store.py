"""Short texts that all connected processes can read and write, kept by process 0.

JAX has such a store to connect the processes, and offers it to nobody else in public: this is the
only module of the package that uses what lies below `jax._src`. All functions need the processes
to be connected, and raise jax.errors.JaxRuntimeError where process 0 cannot be reached any more.
"""

from typing import Any

# JAX wants a limit for every wait, in milliseconds. The watchdog ends a process whose partners are
# gone, so as long as all are alive no wait is too long.
_WEEK = 7 * 24 * 3600 * 1000


def put(key: str, text: str, *, replace: bool = False) -> None:
    """Store a text under a key. replace: whether the key may have one already."""
    _state().client.key_value_set(key, text, allow_overwrite=replace)


def wait_for(key: str) -> str:
    """The text of a key, as soon as one of the processes has stored it."""
    return _state().client.blocking_key_value_get(key, _WEEK)


def entries(prefix: str) -> dict[str, str]:
    """The keys so far that begin with `prefix`, which ends with a slash, and their texts."""
    return dict(_state().client.key_value_dir_get(prefix))


def barrier(name: str) -> None:
    """Wait until all processes have called this; each name serves once."""
    _state().client.wait_at_barrier(name, _WEEK)


def coordinator() -> str:
    """HOST:PORT of process 0 as JAX has found it, also while the processes are being connected."""
    return _state().coordinator_address


def _state() -> Any:
    from jax._src import distributed  # imported late: a single process does without it

    return distributed.global_state
