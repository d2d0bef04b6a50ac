"""Whose memory.high slowed the tasks of a cgroup: its own, or that of one above or below it."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.crawling import MIB, throttled

from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.survivor import Held
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES

NOT_EXCEEDED: dict[str, Any] = {"high_bytes": 50 * MIB, "high_events": 0, "peak_bytes": 31 * MIB}


def sampled(trace: Any, number: int, path: str, *, high_mib: int | None, peak_mib: int, events: int) -> None:
    """Add a cgroup whose count of events grows to `events`."""
    trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    high_bytes = UNLIMITED_BYTES if high_mib is None else high_mib * MIB
    read = {"high_bytes": high_bytes, "peak_bytes": peak_mib * MIB, "limit_bytes": UNLIMITED_BYTES}
    for second, count in ((0, 0), (9, events)):
        trace.add("samples", second, cgroup_id=number, source="periodic", high_events=count, **read)


def held(trace: Any, path: str = "/api") -> Held:
    (one,) = (one for one in held_cgroups(trace) if one.cgroup == path)
    return one


def test_own_memory_high_that_was_exceeded_is_the_owner(trace: Any) -> None:
    throttled(trace, effective_high_bytes=28 * MIB, peak_bytes=30 * MIB)
    sampled(trace, 1, "/", high_mib=None, peak_mib=90, events=10)
    one = held(trace)
    assert one.to_dict()["high_owner"] == {
        "cgroup": "/api",
        "container": None,
        "high_bytes": 28 * MIB,
        "is_high_limited": True,
        "high_events": 10,
        "is_ancestor": False,
    }
    assert one.effective_high_bytes == 28 * MIB
    above = held(trace, "/").high_owner
    assert above is not None
    assert (above.cgroup, above.is_ancestor) == ("/api", False)


def test_ancestor_that_was_exceeded_is_the_owner_though_its_value_is_greater(trace: Any) -> None:
    throttled(trace, effective_high_bytes=50 * MIB, **NOT_EXCEEDED)
    sampled(trace, 1, "/", high_mib=70, peak_mib=71, events=6)
    one = held(trace)
    owner = one.high_owner
    assert owner is not None
    assert (owner.cgroup, owner.high_bytes, owner.high_events, owner.is_ancestor) == ("/", 70 * MIB, 6, True)
    assert "/, an ancestor of /api, was above its memory.high of 70 MiB" in survivor_facts.summary([one])


@pytest.mark.parametrize(("effective_mib", "known_mib"), [(40, 40), (50, None)])
def test_ancestor_that_was_not_traced_is_the_owner_without_a_name(
    trace: Any, effective_mib: int, known_mib: int | None
) -> None:
    """Its value is known only if it is the least one of all."""
    throttled(trace, effective_high_bytes=effective_mib * MIB, **NOT_EXCEEDED)
    one = held(trace)
    assert one.progress.state == "throttled"
    assert one.high_owner is not None
    assert one.high_owner.cgroup is None
    assert one.high_owner.high_bytes == (None if known_mib is None else known_mib * MIB)
    assert one.high_owner.is_ancestor
    assert one.quality.unknown["high_owner.cgroup"] == "the cgroup above was not traced"
    assert ("high_owner.high_bytes" in one.quality.unknown) == (known_mib is None)
    assert "a cgroup that was not traced, an ancestor of /api, was above" in survivor_facts.summary([one])


def test_count_of_a_cgroup_below_is_not_its_parents(trace: Any) -> None:
    """Both counts grew, and the parent never used more than its memory.high."""
    throttled(trace, effective_high_bytes=28 * MIB, peak_bytes=30 * MIB)
    sampled(trace, 1, "/", high_mib=60, peak_mib=59, events=10)
    above = held(trace, "/").high_owner
    assert above is not None
    assert (above.cgroup, above.high_bytes) == ("/api", 28 * MIB)


def test_least_memory_high_is_the_owner_where_none_was_exceeded(trace: Any) -> None:
    sampled(trace, 1, "/a", high_mib=60, peak_mib=9, events=0)
    sampled(trace, 2, "/a/b", high_mib=70, peak_mib=9, events=0)
    sampled(trace, 3, "/c", high_mib=None, peak_mib=9, events=0)
    owner = held(trace, "/a/b").high_owner
    assert owner is not None
    assert (owner.cgroup, owner.high_bytes, owner.is_ancestor) == ("/a", 60 * MIB, True)
    none = held(trace, "/c")
    assert none.high_owner is None
    assert "no memory.high is set" in none.quality.unknown["high_owner"]
