"""Decisions of the OOM killer that involve several cgroups or several victims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 96 << 20
BIG_BYTES = 61 << 20
BIGGER_BYTES = 113 << 20
GROWS_BYTES = 43 << 20
"""More than the rest of the limit beside BIG, and enough less than BIG for the kernel to choose BIG."""
INTERPRETER_BYTES = 16 << 20


class Family(NamedTuple):
    """A cgroup with a limit, and two children for the processes: on v2 only leaves may have processes."""

    parent: Path
    small: Path
    big: Path


@pytest.fixture
def family() -> Iterator[Family]:
    hierarchy = memory_hierarchy()
    with ephemeral_cgroup("family", LIMIT_BYTES, 0, hierarchy) as parent:
        if hierarchy.version == 2:
            (parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
        made = Family(parent, parent / "small", parent / "big")
        for child in made[1:]:
            child.mkdir()
        yield made


@pytest.fixture
def outside() -> Iterator[Path]:
    """Yield a cgroup outside of the limited subtree."""
    with ephemeral_cgroup("outside", None) as directory:
        yield directory


def path_of(directory: Path) -> str:
    return memory_hierarchy().path(directory)


@pytest.mark.vm
def test_kill_in_a_sibling_has_three_distinct_cgroups(
    family: Family,
    outside: Path,
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    recorder = start_recorder("-c", str(family.parent), "-c", str(outside))
    trigger = start_workload(family.small, "anon", str(GROWS_BYTES))
    victim = start_workload(family.big, "anon", str(BIG_BYTES))
    bystander = start_workload(outside, "anon", str(BIGGER_BYTES))
    assert trigger.advance() == "start"
    for one in (bystander, victim):
        assert (one.advance(), one.advance()) == ("start", "done anon")
    trigger.advance()  # the kill frees enough, if it does so before the kernel chooses another victim
    assert victim.process.wait() == -9
    assert bystander.process.poll() is None
    trace = tracer.open(recorder.stop())

    row = trace.oom.to_dict("records")[0]
    assert row["constraint"] == "memcg"
    assert (row["trigger_pid"], row["trigger_tgid"]) == (trigger.process.pid, trigger.process.pid)
    assert (row["pid"], row["tgid"]) == (victim.process.pid, victim.process.pid)
    ids = tuple(row[f"{role}cgroup_id"] for role in ("limit_owner_", "trigger_", ""))
    assert ids == tuple(map(cgroup_id, family))
    assert row["limit_bytes"] == LIMIT_BYTES
    # Its memory is one private writable mapping; the rest is code and read-only data.
    assert BIG_BYTES <= row["data_vm_bytes"] <= BIG_BYTES + INTERPRETER_BYTES
    assert row["data_vm_bytes"] + row["exec_vm_bytes"] + row["stack_vm_bytes"] <= row["total_vm_bytes"]
    assert 0 < row["exec_vm_bytes"] <= INTERPRETER_BYTES
    assert row["threads"] == 1

    kill = trace.explain()[0].to_dict()
    assert kill["limit_owner"]["cgroup"] == path_of(family.parent)
    assert kill["limit_owner"]["is_ancestor"] is True
    assert kill["trigger"]["pid"] == trigger.process.pid
    assert kill["trigger"]["cgroup"] == path_of(family.small)
    (died,) = kill["victims"]
    assert (died["pid"], died["cgroup"]) == (victim.process.pid, path_of(family.big))
    assert BIG_BYTES <= died["anon_rss_bytes"] <= BIG_BYTES + INTERPRETER_BYTES
    assert died["group_kill"] is False
    is_known = row["is_told"] or kill["quality"]["kmsg"] == "matched"
    weighed = {trigger.process.pid, victim.process.pid} if is_known else set()
    assert {candidate["pid"] for candidate in kill["candidates"]} == weighed
    assert [one["chosen"] for one in kill["candidates"]] == [True, False][: len(weighed)], (
        "the victim has the highest badness"
    )
    charged = {one["tgid"] for one in kill["allocators"]}
    assert {trigger.process.pid, victim.process.pid} <= charged
    assert bystander.process.pid not in charged


def test_kill_in_another_cgroup_is_not_recorded(
    family: Family,
    outside: Path,
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    recorder = start_recorder("-c", str(outside))
    elsewhere = start_workload(family.big, "anon", str(2 * LIMIT_BYTES))
    assert (elsewhere.advance(), elsewhere.advance()) == ("start", "")
    assert elsewhere.process.wait() == -9
    trace = tracer.open(recorder.stop())
    assert trace.oom.empty
    assert trace.oom_candidates.empty
    assert trace.explain() == []


@pytest.mark.vm_once
def test_group_kill_is_one_decision_with_all_its_victims(
    family: Family, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    if memory_hierarchy().version == 1:
        pytest.skip("needs cgroup v2: v1 has no memory.oom.group")
    (family.parent / "memory.oom.group").write_text("1", encoding="ascii")
    recorder = start_recorder("-c", str(family.parent))
    idle = {
        start_workload(directory, "anon", str(size_bytes)): (directory, size_bytes)
        for directory, size_bytes in ((family.small, 7 << 20), (family.big, 19 << 20))
    }
    for one in idle:
        assert (one.advance(), one.advance()) == ("start", "done anon")
    trigger = start_workload(family.big, "anon", str(4 * LIMIT_BYTES))
    assert (trigger.advance(), trigger.advance()) == ("start", "")
    assert [one.process.wait() for one in (trigger, *idle)] == [-9, -9, -9]
    trace = tracer.open(recorder.stop())

    assert trace.oom["kill_id"].tolist() == [1, 1, 1]
    assert set(trace.oom["trigger_pid"]) == {trigger.process.pid}
    assert set(trace.oom["limit_owner_cgroup_id"]) == {cgroup_id(family.parent)}
    samples = trace.samples[trace.samples["cgroup_id"] == cgroup_id(family.parent)]
    assert samples["oom_group"].dropna().unique().tolist() == [1]
    # Counted since b6bf9abb0aa4 ("mm/memcg: add oom_group_kill memory event"), v5.17.
    counted = samples["oom_group_kill_events"].dropna()
    assert counted.empty or counted.iloc[-1] == 1

    kill = trace.explain()[0].to_dict()
    assert kill["trigger"]["pid"] == trigger.process.pid
    assert kill["limit_owner"]["cgroup"] == path_of(family.parent)
    victims = {victim["pid"]: victim for victim in kill["victims"]}
    assert set(victims) == {one.process.pid for one in (trigger, *idle)}
    assert all(victim["group_kill"] for victim in victims.values())
    for one, (directory, size_bytes) in idle.items():
        victim = victims[one.process.pid]
        assert victim["cgroup"] == path_of(directory)
        assert size_bytes <= victim["anon_rss_bytes"] <= size_bytes + INTERPRETER_BYTES
