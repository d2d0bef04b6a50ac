"""Calls that return, fail, or never return."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event

import pytest

from tracer.kernel.cgroups import bounded_call
from tracer.kernel.cgroups.bounded_call import bounded


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Let calls wait for an event that comes after the test."""
    monkeypatch.setattr(bounded_call, "_RETURNS_WITHIN_S", 0.01)
    monkeypatch.setattr(bounded_call, "_blocked", [])
    event = Event()
    yield event
    event.set()


def test_call_in_time_has_its_result_and_its_error() -> None:
    assert bounded(os.path.join, "a", "b") == "a/b"
    assert bounded(lambda: None) is None
    with pytest.raises(FileNotFoundError):
        bounded(os.lstat, "/nowhere/at/all")


def test_call_that_does_not_return_is_given_up(answer: Event) -> None:
    with pytest.raises(TimeoutError):
        bounded(answer.wait)


def test_after_three_blocked_calls_no_other_is_made_until_one_returns(answer: Event) -> None:
    made: list[int] = []
    for _ in range(3):
        with pytest.raises(TimeoutError):
            bounded(answer.wait)
    with pytest.raises(TimeoutError):
        bounded(made.append, 1)
    assert made == []
    answer.set()
    for thread in bounded_call._blocked:
        thread.join(60)
    bounded(made.append, 1)
    assert made == [1]
