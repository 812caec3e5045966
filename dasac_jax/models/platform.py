"""Which kind of device a network is traced for: its layers choose among ways to compute by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_CHOSEN: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """ "cpu", "gpu" or "tpu": that of the devices here, unless `traced_for` names another one."""
    return _CHOSEN.get() or jax.default_backend()


@contextmanager
def traced_for(name: str) -> Iterator[None]:
    """Let layers that are traced meanwhile take `name` for the kind of device that will run them.

    For programs that are written to a file here and run elsewhere.
    """
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
