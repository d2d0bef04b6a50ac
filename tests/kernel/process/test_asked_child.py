"""Children that serve requests, and their ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tracer.kernel.process import children
from tracer.kernel.process.asked_child import AskedChild


def work(request: Any) -> Iterator[dict[str, Any]]:
    while request == "endless":
        os.getppid()
    yield {"doubled": 2 * request, "pid": os.getpid()}


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the signals that are sent from here on, which are sent all the same."""
    sent: list[tuple[int, int]] = []

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def kill(pid: int, number: int) -> None:
            sent.append((pid, number))
            os.kill(pid, number)

    monkeypatch.setattr(children, "os", Os())
    monkeypatch.setattr(children, "_END_WITHIN_S", 60)
    return sent


def test_idle_child_ends_without_a_signal(kills: list[tuple[int, int]]) -> None:
    """`watch` reports every SIGKILL of the machine, so its own work must not send any."""
    child = AskedChild(work, within_s=60, is_urgent=False)
    [answer] = child.answered(21) or []
    assert answer["doubled"] == 42
    child.close()
    assert kills == []
    with pytest.raises(ProcessLookupError):
        os.kill(answer["pid"], 0)


def test_busy_child_is_killed(kills: list[tuple[int, int]]) -> None:
    child = AskedChild(work, within_s=0.01, is_urgent=False)
    assert child.answered("endless") is None
    child.close()
    [(pid, number)] = kills
    assert number == 9
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
