"""Calls go on in the background, in their order; one that raises is told, kept and tried again."""

from __future__ import annotations

import threading

import pytest

from dasac_jax.runtime.background import Background


class Calls:
    """What was called, in its order; what is in `failing` raises, and all wait for the gate."""

    def __init__(self):
        self.done: list[str] = []
        self.told: list[str] = []
        self.failing: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.background = Background(lambda error: self.told.append(str(error)))

    def start(self, *names: str) -> None:
        """Each name's first letter is its key."""

        def call(name: str) -> None:
            assert self.gate.wait(30)
            if name in self.failing:
                raise ValueError(name)
            self.done.append(name)

        self.background.start({name[0]: lambda name=name: call(name) for name in names})


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_starting_does_not_wait(calls):
    calls.gate.clear()
    calls.start("a1", "b1")
    assert calls.done == []
    calls.gate.set()
    assert calls.background.wait() is None
    assert calls.done == ["a1", "b1"]


def test_a_start_waits_for_the_calls_before(calls):
    calls.gate.clear()
    calls.start("a1")
    threading.Timer(0.05, calls.gate.set).start()
    calls.start("a2")
    calls.background.wait()
    assert calls.done == ["a1", "a2"]


def test_what_fails_stops_those_behind_it_and_all_are_called_again_before_others(calls):
    calls.failing = {"a1"}
    calls.start("a1", "b1")
    assert str(calls.background.wait()) == "a1"
    assert (calls.done, calls.told) == ([], ["a1"])
    calls.failing = set()
    calls.start("b2")
    assert calls.background.wait() is None
    assert (calls.done, calls.told) == (["a1", "b2"], ["a1"])


def test_a_newer_one_takes_the_place_of_one_that_failed(calls):
    calls.failing = {"a1"}
    calls.start("a1", "b1")
    calls.start("a2", "b2")
    assert calls.background.wait() is None
    assert calls.done == ["a2", "b2"]


def test_without_a_start_there_is_nothing_to_wait_for(calls):
    assert calls.background.wait() is None
