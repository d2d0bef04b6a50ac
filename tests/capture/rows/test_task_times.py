"""CPU time by cgroup, from an array as the BPF programs fill it."""

from __future__ import annotations

import mmap
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tracer.capture.rows.task_times import TaskTimes, task_time_rows

CPUS = 3
ACCOUNTS = 64


class FakePrograms:
    """The maps that `TaskTimes` reads; the cgroup of slot N is 100 + N, unless `ids` has another."""

    def __init__(self) -> None:
        self.cpus, self.accounts = CPUS, ACCOUNTS
        self.shared = mmap.mmap(-1, CPUS * ACCOUNTS * 8)
        self.spent_ns = np.frombuffer(self.shared, "<u8").reshape(CPUS, ACCOUNTS)
        self.ids: dict[int, int] = {}
        self.ticks: list[int] = []
        self.slices = [SimpleNamespace(slot=0, ran_ns=0) for _ in range(CPUS)]

    def map(self, name: str) -> Any:
        if name == "task_times":
            return SimpleNamespace(share=lambda: self.shared)
        if name == "slices":
            return [self.slices]
        assert name == "accounts"
        return self

    def __getitem__(self, slot: int) -> Any:
        return SimpleNamespace(cgroup_id=self.ids.get(slot, 100 + slot))

    def run(self, name: str, cpu: int) -> int:
        assert name == "tick"
        self.ticks.append(cpu)
        if cpu == 1:
            raise OSError("offline")
        return 0


@pytest.fixture
def programs() -> FakePrograms:
    return FakePrograms()


def taken(times: TaskTimes) -> dict[int, int]:
    return {int(row["cgroup_id"]): int(row["cpu_ns"]) for row in times.take()}


def test_take_returns_what_was_used_since_the_last_call(programs: Any) -> None:
    times = TaskTimes(programs)
    assert taken(times) == {}
    programs.spent_ns[0, 7], programs.spent_ns[2, 7], programs.spent_ns[1, 9] = 30, 5, 11
    assert taken(times) == {107: 35, 109: 11}
    programs.spent_ns[1, 7] = 4
    assert taken(times) == {107: 4}
    assert taken(times) == {}
    first, second = times.take, times.take
    programs.spent_ns[1, 7] = 5
    row = first()[0]
    assert row["begin_ns"] < row["time_ns"]
    programs.spent_ns[1, 7] = 6
    assert second()[0]["begin_ns"] == row["time_ns"], "intervals follow one another"


def test_closed_account_keeps_its_time_and_gives_its_slot_to_another(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[0, 7] = 30
    assert taken(times) == {107: 30}
    times.close_account(7, 107, 42)
    programs.spent_ns[0, 7] = 0  # the program takes it out
    programs.ids[7] = 555
    programs.spent_ns[2, 7] = 3
    assert taken(times) == {107: 12, 555: 3}
    assert taken(times) == {}
    times.close_account(8, 108, 0)
    assert taken(times) == {}, "its tasks have not run"
    assert times.work_ns() == 42 + 3
    assert programs.ticks == [0, 1, 2]


def test_time_that_a_cpu_did_not_add_is_added_at_the_end(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[1, 7] = 30
    programs.slices[1] = SimpleNamespace(slot=7, ran_ns=4)
    times.add_left()
    assert taken(times) == {107: 34}


def test_rows_have_the_clock_of_the_trace(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[0, 1] = 30
    records = times.take()
    (row,) = task_time_rows(records, 1000).to_pylist()
    assert (row["time"].value, row["begin"].value) == (
        int(records[0]["time_ns"]) + 1000,
        int(records[0]["begin_ns"]) + 1000,
    )
    assert (row["cgroup_id"], row["cpu_ns"]) == (101, 30)
