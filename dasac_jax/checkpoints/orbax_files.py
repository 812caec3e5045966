"""Writes and reads arrays and metadata of one step's folder; the only module that uses orbax."""

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
from orbax.checkpoint._src.multihost import multihost  # where orbax asks which process this is

_ITEMS = ("state", "metadata")
# Each core compresses arrays in pieces and fills files of limited size, so that writing takes
# little memory besides the arrays.
_CHUNK_BYTES = 1 << 23
_FILE_BYTES = 1 << 25
_JOIN_SECONDS = 10.0  # to wait for each of orbax's threads after a failure
# Held while orbax is used, since what is replaced in it (`_single_process`) serves all threads.
_USING_ORBAX = threading.RLock()


class _Uncopied(np.ndarray):
    """An array that orbax does not copy before it writes it, since nothing changes it meanwhile."""

    def __deepcopy__(self, memo: dict) -> np.ndarray:
        return self


class _FinishingHandler(ocp.type_handlers.NumpyHandler):
    """Writes all arrays, and collects in `errors` what went wrong.

    Orbax's own handler returns at the first error, of a full disk for instance, while its other
    writes go on into a folder that is being removed, and log an error each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    async def _open_and_write(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super()._open_and_write(*args, **kwargs)
        except Exception as error:  # TensorStore raises ValueError whatever went wrong
            self.errors.append(error)


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write a new folder. Raises what orbax and TensorStore raise if they cannot.

    arrays: by names such as "params/head/kernel"; they must not change meanwhile.
    """
    each = {key: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES) for key in arrays}
    uncopied = {key: array.view(_Uncopied) for key, array in arrays.items()}
    state = ocp.args.PyTreeSave(
        traverse_util.unflatten_dict(uncopied, sep="/"),
        save_args=traverse_util.unflatten_dict(each, sep="/"),
        ocdbt_target_data_file_size=_FILE_BYTES,
    )
    writing = _FinishingHandler()
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, writing),
        # No array is a jax.Array, but orbax logs an error where no handler for them is registered.
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    args = ocp.args.Composite(state=state, metadata=ocp.args.JsonSave(dict(metadata)))
    try:
        with _single_process(), _settled(), _checkpointer(state=handler) as checkpointer:
            checkpointer.save(path, args=args)
    finally:
        # Orbax then raises that arrays are missing; why they are is in the first error.
        if writing.errors:
            raise writing.errors[0]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises some exception where there are none or they are damaged."""
    with _single_process(), _checkpointer() as checkpointer:
        items = checkpointer.restore(
            path, args=ocp.args.Composite(state=ocp.args.StandardRestore())
        )
    return traverse_util.flatten_dict(items["state"], sep="/")


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata. Raises as `read_arrays`."""
    with _single_process(), _checkpointer() as checkpointer:
        items = checkpointer.restore(path, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
    return dict(items["metadata"])


@contextlib.contextmanager
def _single_process() -> Iterator[None]:
    """Let orbax take this process for the only one.

    Otherwise it would wait for other processes, which may have nothing to save, confuse their
    signals with its own, and let only process 0 write numpy arrays.
    """
    single = {
        "process_index": lambda: 0,
        "process_count": lambda: 1,
        "is_jax_distributed_client_initialized": lambda: False,
    }
    with _USING_ORBAX:
        found = {name: getattr(multihost, name) for name in single}
        _replace_answers(single)
        try:
            yield
        finally:
            _replace_answers(found)


def _replace_answers(answers: Mapping[str, Callable[[], Any]]) -> None:
    """Replace functions that orbax asks about the processes, for the whole process."""
    for name, answer in answers.items():
        setattr(multihost, name, answer)
    signaling_client.get_signaling_client.cache_clear()  # it was chosen by the old answers


def _checkpointer(**handlers: Any) -> ocp.Checkpointer:
    """A checkpointer for one step's folder. handlers: for items that orbax's own do not serve."""
    only = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    options = ocp.CompositeOptions(multiprocessing_options=only)
    names = [name for name in _ITEMS if name not in handlers]
    handler = ocp.CompositeCheckpointHandler(*names, composite_options=options, **handlers)
    return ocp.Checkpointer(handler, multiprocessing_options=only)


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """Where a save fails, wait for orbax's threads to end, and keep their errors out of the log.

    Orbax raises at the first error while its other threads go on, and logs a stack trace for each;
    the caller reports the failure in one line.
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
                with contextlib.suppress(Exception):  # of the thread itself
                    thread.join(_JOIN_SECONDS)
        raise
    finally:
        logger.removeFilter(is_other)
