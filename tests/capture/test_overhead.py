"""The decision that tracing costs too much, with made-up clocks."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tracer.capture import overhead
from tracer.capture.overhead import Clocks, Overhead
from tracer.errors import TracerError

SECOND_NS = 1_000_000_000


class Machine:
    """A machine whose tasks, programs and recorder use these shares of a CPU, in steps of 10 ms.

    Programs are measured only while statistics are enabled.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most_percent: float, **shares: float) -> None:
        self.shares = {"programs": 0.0, "page_programs": 0.0, "work": 0.0, "recorder": 0.0} | shares
        self.spent_ns = dict.fromkeys(self.shares, 0.0)
        self.ticks = self.enabled_ticks = 0
        self.enabled: set[int] = set()
        monkeypatch.setattr(overhead, "enable_statistics", self._enable)
        monkeypatch.setattr(os, "close", self._close)
        self._close_file = os.close
        clocks = Clocks(
            *(lambda name=name: round(self.spent_ns[name]) for name in self.shares),  # type: ignore[misc]
            now_s=lambda: self.ticks / 100,
        )
        self.overhead = Overhead(most_percent, clocks)

    def _enable(self) -> int:
        self.enabled.add(-1)
        return -1

    def _close(self, fd: int) -> None:
        self.enabled.discard(fd)

    def run(self, seconds: float) -> list[bool]:
        """Return for each tick whether too much was spent."""
        found = []
        for _ in range(round(100 * seconds)):
            self.ticks += 1
            self.enabled_ticks += bool(self.enabled)
            for name, share in self.shares.items():
                if self.enabled or name in ("work", "recorder"):
                    self.spent_ns[name] += share * SECOND_NS / 100
            self.overhead.step()
            found.append(self.overhead.is_exceeded)
        return found


def test_cost_is_measured_in_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 5, programs=0.02, page_programs=0.01, work=0.8, recorder=0.004)
    assert not any(machine.run(20))
    assert machine.enabled_ticks <= 0.06 * machine.ticks
    assert machine.overhead.describe() == {
        "most_percent": 5,
        "programs_percent": 2.5,
        "recorder_percent": 0.5,
        "work_cpu_s": pytest.approx(16, rel=0.1),
    }


def test_more_than_allowed_is_found_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2, programs=0.02, page_programs=0.01, work=1.0, recorder=0.001)
    found = machine.run(2)
    assert found[-1]
    machine = Machine(monkeypatch, 2.2, programs=0.02, page_programs=0.01, work=1.0, recorder=0.001)
    assert not any(machine.run(20))


def test_holds_are_longer_each_time_that_more_is_soon_spent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2, programs=0.05, page_programs=0.05, work=1.0)
    assert holds_in(machine.run(300))[:5] == [pytest.approx(held, abs=1.1) for held in (5, 10, 20, 40, 80)]
    machine.shares["page_programs"] = machine.shares["programs"] = 0.0
    assert not machine.run(100)[-1]
    machine.shares["page_programs"] = machine.shares["programs"] = 0.05
    assert holds_in(machine.run(12))[0] == pytest.approx(5, abs=1.1), "the time before was calm"


def holds_in(found: list[bool]) -> list[float]:
    """Return for how many seconds too much was spent, each time."""
    turns = [tick for tick in range(1, len(found)) if found[tick] != found[tick - 1]]
    return [(off - on) / 100 for on, off in zip(turns[::2], turns[1::2], strict=False)]


@pytest.mark.parametrize(
    "shares",
    [
        {"programs": 0.5, "page_programs": 0.0, "work": 1.0},
        {"programs": 0.5, "page_programs": 0.5, "work": 0.005, "recorder": 0.5},
        {"programs": 0.0, "work": 0.0, "recorder": 1.0},
    ],
    ids=["not by the page cache", "hardly any work", "no work"],
)
def test_cost_that_summing_would_not_lower_is_no_reason(
    monkeypatch: pytest.MonkeyPatch, shares: dict[str, Any]
) -> None:
    machine = Machine(monkeypatch, 2, **shares)
    assert not any(machine.run(10))


def test_kernel_that_does_not_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(overhead, "enable_statistics", refuse)
    clocks = Clocks(*[lambda: 0] * 3)
    with pytest.raises(TracerError, match=r"--max-overhead: .*Operation not permitted.*leave it out"):
        Overhead(2, clocks)
