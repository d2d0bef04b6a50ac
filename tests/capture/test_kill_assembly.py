"""Kills put together from records: victims, candidates, the owner's counters, stacks."""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tracer.capture.bpf.ring import Records
from tracer.capture.kill_assembly import KillAssembly
from tracer.capture.rows.decode import Decoder
from tracer.capture.rows.task_rows import TaskRows
from tracer.wire.dtypes import WIRE

TRIGGER, OWNER = 40, 7


class Written:
    """A stand-in for `TraceWriter` that keeps the rows, and the tables that were written before each
    flush.
    """

    def __init__(self) -> None:
        self.tables: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.flushed: list[set[str]] = []

    def append_rows(self, table: str, rows: list[dict[str, Any]]) -> None:
        self.tables[table] += rows

    def flush(self) -> None:
        self.flushed.append({table for table, rows in self.tables.items() if rows})


class StackMap(dict[int, SimpleNamespace]):
    """The map `stacks`."""

    def delete(self, key: int) -> None:
        self.pop(key, None)


class Assembly:
    """A `KillAssembly` without a kernel; `named` holds the arguments of `Stacks.name`."""

    def __init__(self) -> None:
        self.written = Written()
        self.named: list[tuple[Any, ...]] = []
        self.stack_map = StackMap()
        for number in (3, 5):
            self.stack_map[number] = SimpleNamespace(ip=[number, number + 1, 0])
        programs: Any = SimpleNamespace(map={"stacks": self.stack_map}.get)
        stacks: Any = SimpleNamespace(
            name=lambda *given: self.named.append(given), next_number=count(1).__next__
        )
        writer: Any = self.written
        self.kills = KillAssembly(programs, Decoder(0), writer, TaskRows(), stacks)


@pytest.fixture
def assembly() -> Assembly:
    return Assembly()


def candidates(invocation: int, *tgids: int) -> Records:
    records = np.zeros(len(tgids), WIRE["candidate"])
    records["invocation"], records["trigger_pid"] = invocation, TRIGGER
    records["tgid"] = records["pid"] = tgids
    return records


def victims(invocation: int, *tgids: int) -> Records:
    records = np.zeros(len(tgids), WIRE["oom"])
    records["invocation"], records["trigger_pid"], records["trigger_tgid"] = invocation, TRIGGER, TRIGGER
    records["victim_tgid"] = records["victim_pid"] = tgids
    records["owner_cgroup_id"], records["owner_usage_pages"] = OWNER, [100 + tgid for tgid in tgids]
    records["kernel_stack_id"], records["user_stack_id"], records["start_code"] = 3, 5, 0x1000
    records["time_ns"] = 1000 + np.arange(len(tgids))
    return records


def test_save_flushes_victims_and_counts_decisions(assembly: Assembly) -> None:
    rows = assembly.kills.save(np.concatenate([victims(1, 50, 51), victims(2, 60)]))
    assert [(row["kill_id"], row["pid"]) for row in rows] == [(1, 50), (1, 51), (2, 60)]
    assert (assembly.kills.count, assembly.written.flushed) == (2, [{"oom"}])
    assert assembly.kills.marked_ns == {50: 1000, 51: 1001, 60: 1000}


def test_save_without_a_record_writes_nothing(assembly: Assembly) -> None:
    assert assembly.kills.save(victims(1)) == []
    assert (assembly.kills.count, assembly.written.flushed) == (0, [])


def test_candidates_are_written_with_the_kill_of_their_decision(assembly: Assembly) -> None:
    assembly.kills.hold_candidates(np.concatenate([candidates(1, 50, 51), candidates(2, 60)]))
    assembly.kills.hold_candidates(candidates(1, 52))
    killed = victims(1, 51)
    assembly.kills.save(killed)
    assembly.kills.write_candidates(killed)
    rows = assembly.written.tables["oom_candidates"]
    assert [(row["kill_id"], row["tgid"], row["chosen"]) for row in rows] == [
        (1, 50, False),
        (1, 51, True),
        (1, 52, False),
    ]
    assert assembly.written.flushed[-1] == {"oom", "oom_candidates"}


def test_candidates_of_a_group_kill_are_written_once(assembly: Assembly) -> None:
    assembly.kills.hold_candidates(candidates(1, 50, 51))
    assembly.kills.write_candidates(victims(1, 50, 51))
    assert len(assembly.written.tables["oom_candidates"]) == 2


def test_candidates_of_every_decision_of_a_pass_are_written(assembly: Assembly) -> None:
    decisions = range(1, 1001)
    assembly.kills.hold_candidates(np.concatenate([candidates(number, 50, 51) for number in decisions]))
    assembly.kills.drop_candidates([])
    assembly.kills.write_candidates(np.concatenate([victims(number, 50) for number in decisions]))
    assert len(assembly.written.tables["oom_candidates"]) == 2 * len(decisions)


def test_candidates_of_a_decision_that_killed_nobody_are_dropped(
    assembly: Assembly,
) -> None:
    def written() -> int:
        return len(assembly.written.tables["oom_candidates"])

    assembly.kills.hold_candidates(np.concatenate([candidates(number, 50) for number in (1, 2, 3)]))
    assembly.kills.drop_candidates([])
    held_back = victims(2, 50)  # its cgroup is undecided
    assembly.kills.hold_candidates(candidates(4, 50))
    assembly.kills.drop_candidates([held_back])  # the kill of 1 would have been read by now
    assembly.kills.write_candidates(victims(1, 50))
    assert written() == 0
    assembly.kills.write_candidates(held_back)
    assert written() == 1
    assembly.kills.drop_candidates([])
    assembly.kills.write_candidates(victims(4, 50))
    assert written() == 2, "the last decision may not have ended"


def test_owner_sample_is_that_of_the_first_victim_of_each_decision(assembly: Assembly) -> None:
    killed = np.concatenate([victims(1, 50, 51), victims(2, 60)])
    assembly.kills.save(killed)
    rows = assembly.kills.owner_samples(killed, {}, 2)
    usage = {row["kill_id"]: row["usage_bytes"] // 4096 for row in rows}
    assert usage == {1: 150, 2: 160}


def test_owner_sample_of_a_global_kill_is_absent(assembly: Assembly) -> None:
    killed = victims(1, 50)
    killed["owner_cgroup_id"] = 0
    assert assembly.kills.owner_samples(killed, {}, 2) == []


def test_stacks_of_a_trigger_are_named_once(assembly: Assembly) -> None:
    rows = assembly.kills.save(victims(1, 50, 51))
    assembly.kills.name_stacks()
    again = assembly.kills.save(victims(2, 60))
    assembly.kills.name_stacks()
    assert {(row["kernel_stack_id"], row["user_stack_id"]) for row in rows + again} == {(1, 2)}
    assert assembly.named == [(1, TRIGGER, None, (3, 4)), (2, TRIGGER, (0x1000, 0), (5, 6))]


def test_missing_stack_is_null(assembly: Assembly) -> None:
    """Of the second kill, the stacks left the map before they were read."""
    killed = victims(1, 50, 51)
    killed["kernel_stack_id"], killed["user_stack_id"] = (-1, 7), (-1, 7)
    rows = assembly.kills.save(killed)
    assembly.kills.name_stacks()
    assert [(row["kernel_stack_id"], row["user_stack_id"]) for row in rows] == [(None, None)] * 2
    assert assembly.named == []


def test_stacks_of_a_thousand_kills_leave_the_map(assembly: Assembly) -> None:
    """The kernel gives each a place in a map of 1024, and the same place to another one later."""
    for kill_id in range(1, 2001):
        key = 10 + kill_id % 700
        assembly.stack_map[key] = SimpleNamespace(ip=[kill_id, 0])
        killed = victims(kill_id, 50)
        killed["kernel_stack_id"], killed["user_stack_id"] = key, -1
        assembly.kills.save(killed)
        assembly.kills.name_stacks()
    assert len(assembly.stack_map) < 200
    assert [addresses for _, _, _, addresses in assembly.named] == [(number,) for number in range(1, 2001)]
    assert len({number for number, *_ in assembly.named}) == 2000
