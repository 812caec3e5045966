"""One step's folder: arrays and metadata to files and back, by orbax, which only this knows."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint._src.futures import signaling_client
from orbax.checkpoint._src.multihost import multihost  # orbax asks it which process this is

_ITEMS = ("state", "metadata")
# Arrays are compressed and files are filled in such pieces, each core at its own: a writer takes
# little memory besides the arrays.
_CHUNK_BYTES = 1 << 23
_FILE_BYTES = 1 << 25
_SETTLE_SECONDS = 10.0  # for each of a few threads
_ALONE = threading.RLock()  # whoever uses orbax, which numbers saves for the whole process


class _AsItLies(np.ndarray):
    """An array that orbax does not copy before it writes: it need not guard against changes."""

    def __deepcopy__(self, memo: dict) -> np.ndarray:
        return self


class _ToTheEnd(ocp.type_handlers.NumpyHandler):
    """Writes arrays and ends when no write is under way any more, even where one fails.

    Orbax's own gives up at the first error, on a full disk say, while the rest of the writes go
    on: into a folder that is being removed, with a complaint each. Whoever saves looks at `errors`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    async def _open_and_write(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super()._open_and_write(*args, **kwargs)
        except Exception as error:  # TensorStore's is a ValueError, whatever went wrong
            self.errors.append(error)


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write a new folder. Raises what orbax and TensorStore raise if they cannot.

    arrays: by names such as "params/head/kernel"; they must not change meanwhile.
    """
    each = {key: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES) for key in arrays}
    still = {key: array.view(_AsItLies) for key, array in arrays.items()}
    state = ocp.args.PyTreeSave(
        traverse_util.unflatten_dict(still, sep="/"),
        save_args=traverse_util.unflatten_dict(each, sep="/"),
        ocdbt_target_data_file_size=_FILE_BYTES,
    )
    writing = _ToTheEnd()
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, writing),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # missed aloud, though there is none
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    args = ocp.args.Composite(state=state, metadata=ocp.args.JsonSave(dict(metadata)))
    try:
        with _alone(), _told_once(), _checkpointer(state=handler) as checkpointer:
            checkpointer.save(path, args=args)
    finally:
        # What orbax makes of missing arrays is not why they are missing.
        if writing.errors:
            raise writing.errors[0]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises some exception where there are none or they are damaged."""
    with _alone(), _checkpointer() as checkpointer:
        items = checkpointer.restore(
            path, args=ocp.args.Composite(state=ocp.args.StandardRestore())
        )
    return traverse_util.flatten_dict(items["state"], sep="/")


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata. Raises as `read_arrays`."""
    with _alone(), _checkpointer() as checkpointer:
        items = checkpointer.restore(path, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
    return dict(items["metadata"])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Orbax takes this process for the only one.

    Otherwise it waits for others, which may have nothing to save, takes their signals for its own,
    and lets none but the first write numpy arrays.
    """
    alone = {
        "process_index": lambda: 0,
        "process_count": lambda: 1,
        "is_jax_distributed_client_initialized": lambda: False,
    }
    with _ALONE:
        found = {name: getattr(multihost, name) for name in alone}
        _tell_orbax(alone)
        try:
            yield
        finally:
            _tell_orbax(found)


def _tell_orbax(answers: Mapping[str, Callable[[], Any]]) -> None:
    for name, answer in answers.items():
        setattr(multihost, name, answer)
    signaling_client.get_signaling_client.cache_clear()  # it keeps what the answers led to


def _checkpointer(**handlers: Any) -> ocp.Checkpointer:
    """What reads and writes one step's folder; handlers: those of items that are not orbax's."""
    only = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    options = ocp.CompositeOptions(multiprocessing_options=only)
    names = [name for name in _ITEMS if name not in handlers]
    handler = ocp.CompositeCheckpointHandler(*names, composite_options=options, **handlers)
    return ocp.Checkpointer(handler, multiprocessing_options=only)


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Where a save fails, wait for all that orbax has under way, and leave the telling to us.

    It gives up at the first error while its other threads go on, and logs a trace for each.
    """
    logger = logging.getLogger("absl")

    def is_other(record: logging.LogRecord) -> bool:
        return "_SignalingThread" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    except Exception:
        for thread in threading.enumerate():
            if type(thread).__module__.startswith("orbax."):
                with contextlib.suppress(Exception):  # the thread's own
                    thread.join(_SETTLE_SECONDS)
        raise
    finally:
        logger.removeFilter(is_other)
