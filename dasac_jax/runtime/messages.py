"""Messages between the processes of a run, through the texts that process 0 keeps."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import jax

from dasac_jax.runtime import key_value_store, watchdog


class Messages:
    """Messages between one thread of each process, which all make the same calls in order.

    name: the same on all processes, and a different one for each thread. Each message is anything
    that JSON can hold. Where there are no other processes, none are sent.
    """

    def __init__(self, name: str) -> None:
        self._keys = (f"dasac/{name}/{number}" for number in itertools.count())

    def from_first(self, make: Callable[[], Any]) -> Any:
        """The result of `make`, which is called on process 0 alone, on all processes."""
        if not watchdog.is_on():
            return make()
        key = next(self._keys)
        if jax.process_index() == 0:
            value = make()
            key_value_store.put(key, json.dumps(value))
            return value
        return json.loads(key_value_store.wait_for(key))

    def from_all(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their numbers."""
        if not watchdog.is_on():
            return [value]
        key = next(self._keys)
        key_value_store.put(f"{key}/{jax.process_index()}", json.dumps(value))
        keys = (f"{key}/{process}" for process in range(jax.process_count()))
        return [json.loads(key_value_store.wait_for(each)) for each in keys]

    def together(self, work: Callable[[], Any]) -> list[Any]:
        """Call `work` on each process; returns all results, in the order of the processes.

        Where it fails on one, all raise: that one its own exception, the others RuntimeError with
        the same text.
        """
        if not watchdog.is_on():
            return [work()]
        result, error, message = None, None, None
        try:
            result = work()
        except Exception as raised:  # of any kind, since the others wait for an answer
            error, message = raised, f"process {jax.process_index()}: {raised}"
        answers = self.from_all([result, message])
        if error is not None:
            raise error
        for _, failure in answers:
            if failure is not None:
                raise RuntimeError(failure)
        return [value for value, _ in answers]

    def on_first(self, work: Callable[[], Any]) -> None:
        """Call `work` on process 0, while the others wait; where it fails, all raise."""
        self.together(lambda: work() if jax.process_index() == 0 else None)
