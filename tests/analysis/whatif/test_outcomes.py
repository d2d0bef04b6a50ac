"""The answer for the recorded examples, and the choice of the cgroup and the limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.recorded import NAMES, TRACES

import tracer
from tracer.analysis.whatif import outcomes
from tracer.analysis.whatif.outcomes import what_if
from tracer.errors import TracerError

MIB = 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_answer_agrees_with_the_range_of_the_report(name: str) -> None:
    """Below the lower end it is killed, and from the upper end on it is not."""
    trace = tracer.open(TRACES / name)
    reports = trace.explain()
    kills = [one.sizing.min_limit_bytes for one in reports]
    ranges = kills or [one.sizing.min_limit_bytes for one in trace.spared_cgroups(reports)[:1]]
    known = [one for one in ranges if one is not None]
    highs = [high for _, high in known if high is not None]
    found = what_if(trace, [max(low for low, _ in known) * 4 // 5, *highs] if known else [])
    assert (found.killed_below_bytes is None) == (not known)
    assert (found.survives_from_bytes is None) == (not highs)
    if known:
        assert found.limits[0].outcome == "killed"
        assert (found.killed_below_bytes or 0) <= max(low for low, _ in known)
    if highs:
        assert (found.survives_from_bytes or 0) <= max(highs)
        assert found.limits[-1].outcome in ("survives", "unknown")


def test_end_of_growth_beside_swap_is_no_proof_without_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tracer.open(TRACES / "cow")
    assert what_if(trace, [400 * MIB], swap_bytes=0).limits[0].outcome == "survives"
    monkeypatch.setattr(outcomes, "swap_room_bytes", lambda _: 64 * MIB)
    assert what_if(trace, [400 * MIB]).limits[0].outcome == "survives"
    less, more = what_if(trace, [50 * MIB, 400 * MIB], swap_bytes=0).limits
    assert (less.outcome, more.outcome) == ("killed", "unknown")
    assert more.why.endswith("what was in swap needs room as well, with less swap")


def test_reason_names_the_kill_at_the_highest_limit(page_cache_experiment: Any) -> None:
    """A limit of 100 MiB led to a kill, and then one of 200 MiB."""
    trace = page_cache_experiment
    again = {**trace.recorded()["oom"][0], "kill_id": 2, "time": trace.ns(3.9), "limit_bytes": 200 * MIB}
    again["usage_bytes"] = 200 * MIB
    trace.recorded()["oom"].append(again)
    (found,) = what_if(trace, [150 * MIB], 7).limits
    assert (found.outcome, found.why) == ("killed", "the run was killed at 200 MiB at 3.80 s")


def test_curve_is_of_limits_where_something_changes() -> None:
    found = what_if(tracer.open(TRACES / "thrash"))
    assert found.recorded_limit_bytes == 40 * MIB
    limits = [one.limit_bytes for one in found.limits]
    assert limits == sorted(set(limits)) and 40 * MIB in limits
    assert all(limit % MIB == 0 for limit in limits)
    outcomes = [one.outcome for one in found.limits]
    assert outcomes[0] == "killed" and outcomes[-1] == "survives"
    highs = [one.read_again_bytes[1] for one in found.limits if one.limit_bytes >= 40 * MIB]
    assert highs == sorted(highs, reverse=True)  # type: ignore[type-var]


def test_the_cgroup_with_the_kill_is_chosen(trace: Any) -> None:
    found = what_if(tracer.open(TRACES / "parent-limit"))
    assert found.cgroup.endswith("-lab-parent-limit")
    assert what_if(tracer.open(TRACES / "parent-limit"), cgroup="*/small").cgroup.endswith("/small")
    with pytest.raises(TracerError, match="no data of a cgroup"):
        what_if(trace)


def test_frame_has_a_row_for_each_limit() -> None:
    frame = tracer.open(TRACES / "thrash").whatif([64 * MIB, 4 * MIB])
    assert frame.index.tolist() == [4 * MIB, 64 * MIB]
    assert frame["outcome"].tolist() == ["killed", "survives"]
    (low, high) = (frame[f"read_again_{end}_bytes"] for end in ("low", "high"))
    assert low.isna().tolist() == high.isna().tolist() == [True, False]
    assert 150 * MIB < low.tolist()[1] < high.tolist()[1] < 180 * MIB


def test_document_has_the_fields_that_users_rely_on() -> None:
    document = json.loads(json.dumps(what_if(tracer.open(TRACES / "thrash"), [64 * MIB]).to_dict()))
    (one,) = document["limits"]
    expected = ["limit_bytes", "swap_bytes", "outcome", "why", "read_again_bytes", "lost_share", "resize"]
    assert list(one) == expected
    assert len(one["read_again_bytes"]) == len(one["lost_share"]) == 2
