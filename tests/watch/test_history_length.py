"""What `watch` says when its history becomes shorter than asked, and when it is whole again."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pytest
from synthetic.cgroup_worlds import S, cgroup, table

from tracer.trace.history.history import History
from tracer.trace.meta import Meta, begin
from tracer.watch.watching import HistoryLength

MIB: Final = 1 << 20
KEEP_S: Final = 120


class Machine:
    """A history into which rows of cgroups come that come and go, as many as asked in each second."""

    def __init__(self, meta: Meta) -> None:
        self.history = History(meta, keep_ns=KEEP_S * S, most_bytes=64 * MIB)
        self.begin_ns = meta["clock"]["realtime_ns"]
        self.said: list[str] = []
        self.length = HistoryLength(self.history, 100 * MIB, self.said.append, self.said.append)
        self.now_s = 0
        self._id = 0

    @property
    def shortened_to_s(self) -> float | None:
        return self.history.shortened_to_s(self.begin_ns + self.now_s * S)

    def go_on(self, seconds: int, churn: int) -> list[str]:
        """Let seconds pass, with `churn` cgroups in each, and return what was said."""
        for _ in range(seconds):
            time_ns = self.begin_ns + self.now_s * S
            rows = [
                cgroup(self._id + one, None) | {"created": time_ns, "removed": time_ns + S // 2}
                for one in range(1, churn + 1)
            ]
            self._id += churn
            if rows:
                self.history.append("cgroups", table("cgroups", rows))
            self.history.append("kernel_log", _line(time_ns))
            self.now_s += 1
            if self.now_s % 2 == 0:
                self.history.age(self.begin_ns + self.now_s * S)
                self.length.look(self.begin_ns + self.now_s * S)
        said, self.said[:] = [*self.said], []
        return said


def _line(time_ns: int) -> pa.Table:
    return table(
        "kernel_log", [{"time": time_ns, "ktime_ns": 1, "sequence": 1, "level": 6, "text": "a line"}]
    )


@pytest.fixture
def machine() -> Machine:
    return Machine(begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={}))


def test_whole_history_says_nothing(machine: Machine) -> None:
    """Neither while it fills nor when rows are dropped because they are old."""
    assert machine.go_on(3 * KEEP_S, churn=5) == []
    assert machine.shortened_to_s is None


def test_history_that_shrinks_says_so_once_and_recovers(machine: Machine) -> None:
    assert machine.go_on(80, churn=100) == []
    machine.history.most_bytes = 2 * MIB
    first, *more = machine.go_on(60, churn=100)
    assert first.endswith(" instead of 2 min 00 s: more does not fit into --max-memory (100 MiB)")
    assert first.startswith("the history has the last ")
    assert len(more) <= 3, "each time that it has half of what was said"
    assert machine.go_on(60, churn=100) == []
    machine.history.most_bytes = 64 * MIB
    lacking_s = KEEP_S - round(machine.shortened_to_s or 0)
    assert 20 < lacking_s <= KEEP_S - 10
    assert machine.go_on(lacking_s - 4, churn=1) == [], "what was dropped does not come back"
    assert machine.go_on(10, churn=1) == ["the history has the last 2 min 00 s again"]
    assert machine.go_on(KEEP_S, churn=1) == []


def test_far_too_large_history_of_cgroups_shrinks_at_once(machine: Machine) -> None:
    """It need not be dropped in steps of seconds: memory would be too large until then."""
    machine.go_on(100, churn=100)
    machine.history.most_bytes = machine.history.size_bytes // 4
    machine.go_on(2, churn=100)
    assert 10 <= (machine.shortened_to_s or 0) < 40
    machine.go_on(10, churn=100)
    assert machine.history.size_bytes < 2 * machine.history.most_bytes
