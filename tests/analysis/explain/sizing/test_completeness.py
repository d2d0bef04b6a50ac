"""The reasons for which another run of the same work can need more memory, so that no range is given."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.sizing.bounds import why_incomplete

MIB = 1 << 20
OF_COMMAND: dict[str, Any] = {"filters": {"asked": [], "command": ["work"]}}


def why(trace: Any, state: str | None = None, **meta: Any) -> str | None:
    trace.meta |= meta
    subtree = Subtrees(trace).subtree_at(7)
    held = ledger.level(subtree, ledger.ANON)
    assert held is not None
    return why_incomplete(subtree, held, state)


def grown(trace: Any, *steps: tuple[float, int]) -> Any:
    """Record cgroup 7 from 0 s to 9 s, which grows by so many MiB at these seconds."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", 9, cgroup_id=7, source="end", usage_bytes=0)
    for seconds, mib in steps:
        trace.charged(seconds, 7, "anon", mib * MIB)
    return trace


def early(trace: Any) -> Any:
    return grown(trace, (1, 70), (5, -30), (8, 29))


def late(trace: Any) -> Any:
    return grown(trace, (1, 70), (8, 5))


@pytest.mark.parametrize("grow", [early, late])
def test_work_is_complete_if_its_command_succeeded(trace: Any, grow: Any) -> None:
    assert why(grow(trace), **OF_COMMAND, end_reason="command_ended", command_status=0) is None


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"end_reason": "command_ended", "command_status": 2}, "ended with status 2"),
        ({"end_reason": "command_ended", "command_status": -9}, "was ended by SIGKILL"),
        ({"end_reason": "SIGINT", "command_status": 0}, "ended before its command"),
        ({"end_reason": "duration", "command_status": -15}, "ended before its command"),
        ({"ended": None}, "broke off"),
    ],
)
def test_work_is_not_complete_without_the_success_of_its_command(
    trace: Any, meta: dict[str, Any], reason: str
) -> None:
    assert reason in (why(early(trace), **OF_COMMAND, **meta) or "")


@pytest.mark.parametrize(
    "meta",
    [
        {"end_reason": "SIGINT", "filters": {"asked": ["web"], "command": None}},
        OF_COMMAND | {"end_reason": "command_ended"},  # a trace without the status
    ],
)
def test_work_without_a_known_end_must_not_grow_in_its_last_third(trace: Any, meta: dict[str, Any]) -> None:
    assert why(early(trace), **meta) is None
    trace.charged(8.5, 7, "anon", 7 * MIB)
    assert "still grew (by 6 MiB in the last third" in (why(trace) or "")


@pytest.mark.parametrize("state", ["thrashing", "throttled"])
def test_work_that_crawls_is_complete_only_if_its_command_succeeded(trace: Any, state: str) -> None:
    assert why(early(trace), "held") is None
    assert f"its tasks were {state}" in (why(trace, state) or "")
    assert why(trace, state, **OF_COMMAND, end_reason="command_ended", command_status=0) is None


def test_the_last_third_is_that_of_the_life_of_the_cgroup(trace: Any) -> None:
    grown(trace, (1, 70), (2.2, 9), (2.5, -79))
    assert why(trace) is None
    trace.forget("cgroups")
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0), removed=trace.ns(2.6))
    assert "still grew" in (why(trace) or "")


@pytest.mark.parametrize(
    ("comm", "cmdline", "bound"),
    [
        (
            "java",
            "/usr/bin/java -Xms64m -Xmx512m -jar a.jar",
            "java lets its heap grow up to its bound (-Xmx512m)",
        ),
        ("main", "java -jar a.jar", "(a part of the limit)"),
        ("node", "node --max-old-space-size=300 a.js", "(--max-old-space-size=300)"),
        ("java", None, "(a part of the limit)"),
        ("javac-like", "python3 java", None),
    ],
)
def test_a_heap_that_grows_to_its_bound_is_no_demand(
    trace: Any, comm: str, cmdline: str | None, bound: str | None
) -> None:
    early(trace).add("tasks", tgid=41, comm=comm, cmdline=cmdline, cgroup_id=7, first_seen=trace.ns(1))
    found = why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0)
    assert found is None if bound is None else bound in (found or "")


@pytest.mark.parametrize(
    ("command", "outside"),
    [
        ("java -Xmx9m", "at least 61 MiB of 70 MiB of anonymous memory was outside that heap"),
        ("java -Xmx99m -Xmx9m", "at least 61 MiB of 70 MiB"),
        ("java -Xmx9m -XX:MaxHeapSize=67m", None),
        ("java -Xmx1g", None),
        ("java", None),
        ("node --max-old-space-size=9", "at least 13 MiB of 70 MiB"),  # and 48 MiB of young objects
        ("node --max-old-space-size=9 --max-semi-space-size=64", None),
    ],
)
def test_memory_that_the_heap_cannot_hold_is_outside_of_it(
    trace: Any, command: str, outside: str | None
) -> None:
    program = command.partition(" ")[0]
    early(trace).add(
        "tasks", tgid=41, comm=program, cmdline=f"{command} Main", cgroup_id=7, first_seen=trace.ns(1)
    )
    found = why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0) or ""
    assert "no demand" in found
    assert outside in found if outside is not None else "outside" not in found
