"""Synthetic stack samples: the rows that count, their sums, and unknown names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracer.analysis.explain import postmortem
from tracer.analysis.views import code_samples
from tracer.analysis.views.code_samples import Charged
from tracer.errors import UsageError

MIB = 1 << 20
USER, OTHER_USER, KERNEL, OTHER_KERNEL = 70_001, 70_002, 70_003, 70_004


def sampled(trace: Any, seconds: float, weight: int, **row: Any) -> None:
    known = {"cgroup_id": 7, "tgid": 41, "tid": 42, "category": "anon", "bytes": weight}
    trace.add("code_samples", seconds, **known | row)


@pytest.fixture
def named(trace: Any) -> Any:
    trace.add("tasks", tgid=41, start_ns=5, comm="work", first_seen=trace.ns(0))
    trace.add("tasks", tgid=43, start_ns=6, comm="other", first_seen=trace.ns(0))
    trace.add("stacks", stack_id=USER, frames=["grow [work]", "main [work]"])
    trace.add("stacks", stack_id=OTHER_USER, frames=["[gone.so]+0x12", "0x7f00", "main [work]"])
    trace.add("stacks", stack_id=KERNEL, frames=["charge+0x4", "asm_exc_page_fault+0x22"])
    trace.add("stacks", stack_id=OTHER_KERNEL, frames=["charge+0x9", "asm_exc_page_fault+0x22"])
    return trace


def charged(trace: Any) -> list[Charged]:
    return code_samples.charged(trace, code_samples.samples_within(trace.code_samples, None))


def test_charged_sums_up_functions_at_any_offset(named: Any) -> None:
    sampled(named, 1, MIB, stack_id=USER, kernel_stack_id=KERNEL)
    sampled(named, 2, 2 * MIB, stack_id=USER, kernel_stack_id=OTHER_KERNEL)
    sampled(named, 3, 5 * MIB, stack_id=OTHER_USER, kernel_stack_id=KERNEL)
    sampled(named, 3, MIB, stack_id=USER, kernel_stack_id=KERNEL, tgid=43)
    fault = ("asm_exc_page_fault", "charge")
    assert charged(named) == [
        Charged("work", ("main", "0x7f00", "[gone.so]+0x12"), fault, 5 * MIB),
        Charged("work", ("main", "grow"), fault, 3 * MIB),
        Charged("other", ("main", "grow"), fault, MIB),
    ]


def test_charged_marks_unknown_names(named: Any) -> None:
    """There is no stack, a stack whose names were never written, and a process without a name."""
    sampled(named, 1, MIB)
    sampled(named, 1, 2 * MIB, stack_id=99_999, kernel_stack_id=KERNEL, tgid=50)
    assert charged(named) == [
        Charged("[unknown]", ("[unknown]",), ("asm_exc_page_fault", "charge"), 2 * MIB),
        Charged("work", (), (), MIB),
    ]


def test_charged_without_samples_is_empty(trace: Any) -> None:
    assert charged(trace) == []


def test_samples_within_cgroups_and_an_interval_leave_others_out(named: Any) -> None:
    for seconds in (1, 2, 3, 4):
        sampled(named, seconds, seconds, cgroup_id=7 if seconds % 2 else 8)

    def weights(*arguments: Any) -> list[int]:
        return code_samples.samples_within(named.code_samples, *arguments)["bytes"].tolist()

    assert weights(None) == [1, 2, 3, 4]
    assert weights(None, named.ns(2), named.ns(3)) == [2, 3]
    assert weights(np.array([7]), named.ns(2), None) == [3]
    assert weights(np.array([], dtype=np.int64)) == []


def test_allocated_before_is_the_window_of_a_kill(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    sampled(trace, 2.5, 40 * MIB)
    sampled(trace, 2.6, 90 * MIB, tgid=43)
    sampled(trace, 2.6, 90 * MIB, cgroup_id=8)
    members, begin, end = postmortem.allocated_before(trace, 1)
    rows = code_samples.samples_within(trace.code_samples, members, begin, end)
    assert sorted(rows["bytes"].tolist()) == [40 * MIB, 90 * MIB]  # by two processes
    with pytest.raises(UsageError, match="there is no kill 2 in this trace: it holds kill 1"):
        postmortem.allocated_before(trace, 2)


def test_lost_code_samples_do_not_count_as_lost_records(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    trace.add("loss", 3, begin=trace.ns(2), stream="code_sample", lost=12)
    assert postmortem.explain(trace)[0].quality.lost_records == 0
    trace.add("loss", 3, begin=trace.ns(2), stream="charge", lost=3)
    assert postmortem.explain(trace)[0].quality.lost_records == 3
