"""Synthetic stack samples: the rows that count, their sums, and unknown names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracer.analysis.explain import postmortem
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.memory import ChargedStack
from tracer.analysis.views import stack_samples
from tracer.analysis.views.stack_samples import Charged
from tracer.errors import UsageError

MIB = 1 << 20
USER, OTHER_USER, KERNEL, OTHER_KERNEL = 70_001, 70_002, 70_003, 70_004


def sampled(trace: Any, seconds: float, weight: int, **row: Any) -> None:
    known = {"cgroup_id": 7, "tgid": 41, "pid": 42, "category": "anon", "weight_bytes": weight}
    trace.add("stack_samples", seconds, **known | row)


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
    return stack_samples.charged(trace, stack_samples.samples_within(trace.stack_samples, None))


def test_charged_sums_up_functions_at_any_offset(named: Any) -> None:
    sampled(named, 1, MIB, user_stack_id=USER, kernel_stack_id=KERNEL)
    sampled(named, 2, 2 * MIB, user_stack_id=USER, kernel_stack_id=OTHER_KERNEL)
    sampled(named, 3, 5 * MIB, user_stack_id=OTHER_USER, kernel_stack_id=KERNEL)
    sampled(named, 3, MIB, user_stack_id=USER, kernel_stack_id=KERNEL, tgid=43)
    fault = ("asm_exc_page_fault", "charge")
    assert charged(named) == [
        Charged("work", ("main", "0x7f00", "[gone.so]+0x12"), fault, 5 * MIB),
        Charged("work", ("main", "grow"), fault, 3 * MIB),
        Charged("other", ("main", "grow"), fault, MIB),
    ]


def test_charged_marks_unknown_names(named: Any) -> None:
    """There is no stack, a stack whose names were never written, and a process without a name."""
    sampled(named, 1, MIB)
    sampled(named, 1, 2 * MIB, user_stack_id=99_999, kernel_stack_id=KERNEL, tgid=50)
    assert charged(named) == [
        Charged("[unknown]", ("[unknown]",), ("asm_exc_page_fault", "charge"), 2 * MIB),
        Charged("work", (), (), MIB),
    ]


def test_charged_without_samples_is_empty(trace: Any) -> None:
    assert charged(trace) == []
    assert charged_in(trace) == []


def test_samples_within_cgroups_and_an_interval_leave_others_out(named: Any) -> None:
    for seconds in (1, 2, 3, 4):
        sampled(named, seconds, seconds, cgroup_id=7 if seconds % 2 else 8)

    def weights(*arguments: Any) -> list[int]:
        return stack_samples.samples_within(named.stack_samples, *arguments)["weight_bytes"].tolist()

    assert weights(None) == [1, 2, 3, 4]
    assert weights(None, named.ns(2), named.ns(3)) == [2, 3]
    assert weights(np.array([7]), named.ns(2), None) == [3]
    assert weights(np.array([], dtype=np.int64)) == []


def charged_in(trace: Any, *kinds: str) -> list[tuple[str, tuple[str, ...] | None, int, int]]:
    rows = stack_samples.samples_within(trace.stack_samples, None)
    found = stack_samples.charged_in(trace, rows, kinds or stack_samples.KINDS)
    return [(one.of, one.user or one.kernel, one.sampled_bytes, one.of_bytes) for one in found]


def test_stacks_are_merged_by_the_inner_functions_that_they_share(named: Any) -> None:
    """75 of 91 share two inner functions below 25 callers; no other stack has a quarter."""
    for caller in range(25):
        named.add("stacks", stack_id=caller, frames=["alloc+0x1", "row+0x2", f"caller_{caller}+0x3", "main"])
        sampled(named, 1, 3 * MIB, user_stack_id=caller, kernel_stack_id=KERNEL)
    sampled(named, 2, 16 * MIB, user_stack_id=OTHER_USER, kernel_stack_id=KERNEL)
    rows = stack_samples.samples_within(named.stack_samples, None)
    assert stack_samples.charged_in(named, rows, ("anon",)) == (
        ChargedStack(
            *("work", 41, 1, "anon", ("alloc", "row"), ("charge", "asm_exc_page_fault"), 75 * MIB, 91 * MIB),
        ),
    )


def test_callers_with_a_quarter_each_are_told_apart(named: Any) -> None:
    for stack_id, caller, mib in ((1, "read_a", 30), (2, "read_b", 29), (3, "read_c", 5)):
        named.add("stacks", stack_id=stack_id, frames=["memset", caller, "main"])
        sampled(named, 1, mib, user_stack_id=stack_id)
    assert charged_in(named) == [
        ("all", ("memset", "read_a", "main"), 30, 64),
        ("all", ("memset", "read_b", "main"), 29, 64),
    ]


def test_only_samples_of_the_wanted_kind_count(named: Any) -> None:
    named.add("stacks", stack_id=5, frames=["shmem_get_folio_gfp+0x1", "shmem_fault+0x6"])
    sampled(named, 1, 4, user_stack_id=USER)
    sampled(named, 1, 9, user_stack_id=OTHER_USER, category="file", kernel_stack_id=KERNEL)
    sampled(named, 1, 3, user_stack_id=USER, category="file", kernel_stack_id=5)
    sampled(named, 1, 2, kernel_stack_id=KERNEL, category="sock")
    assert charged_in(named, "anon") == [("anon", ("grow", "main"), 4, 4)]
    assert charged_in(named, "file") == [("file", ("[gone.so]+0x12", "0x7f00", "main"), 9, 9)]
    assert charged_in(named, "shmem") == [("shmem", ("grow", "main"), 3, 3)]
    assert charged_in(named, "kernel") == [("kernel", ("charge", "asm_exc_page_fault"), 2, 2)]
    assert [weight for *_, weight, _ in charged_in(named)] == [9, 7]  # 2 is less than a quarter of 18


def test_stacks_of_processes_of_one_name_are_merged(named: Any) -> None:
    named.add("tasks", tgid=44, start_ns=7, comm="work", first_seen=named.ns(0))
    for tgid, weight in ((41, 3), (44, 5), (43, 9)):
        sampled(named, 1, weight, user_stack_id=USER, tgid=tgid)
    rows = stack_samples.samples_within(named.stack_samples, None)
    found = stack_samples.charged_in(named, rows)
    assert [(one.comm, one.tgid, one.processes, one.sampled_bytes) for one in found] == [
        ("other", 43, 1, 9),
        ("work", None, 2, 8),
    ]


def test_kill_has_the_stacks_of_the_kind_of_its_verdict(page_cache_experiment: Any) -> None:
    """Only samples of anonymous memory, in the limit owner, in the window before the kill count."""
    trace = page_cache_experiment
    (before,) = postmortem.explain(trace)
    assert before.charged_in == ()
    trace.add("stacks", stack_id=USER, frames=["grow [work]", "main [work]"])
    trace.add("stacks", stack_id=OTHER_USER, frames=["elsewhere [work]"])
    sampled(trace, 2.5, 40 * MIB, user_stack_id=USER)
    sampled(trace, 2.6, 90 * MIB, user_stack_id=OTHER_USER, cgroup_id=8)
    sampled(trace, 2.6, 90 * MIB, user_stack_id=OTHER_USER, category="file")
    sampled(trace, 3.7, 90 * MIB, user_stack_id=OTHER_USER)
    (report,) = postmortem.explain(trace)
    assert report.verdict.cause == "anon_growth"
    (stack,) = report.charged_in
    assert (stack.tgid, stack.of, stack.user) == (41, "anon", ("grow", "main"))
    assert (stack.sampled_bytes, stack.of_bytes) == (40 * MIB, 40 * MIB)


@pytest.mark.parametrize(("anon", "file", "kind"), [(9, 5, "anon"), (5, 9, "file")])
def test_held_has_the_stacks_of_its_largest_kind(named: Any, anon: int, file: int, kind: str) -> None:
    named.add("cgroups", cgroup_id=7, path="/a", created=named.ns(0))
    named.charged(1, 7, "file", file * MIB, tgid=41, usage_bytes=file * MIB)
    named.charged(2, 7, "anon", anon * MIB, tgid=41, usage_bytes=(anon + file) * MIB)
    sampled(named, 1, file * MIB, user_stack_id=OTHER_USER, category="file")
    sampled(named, 2, anon * MIB, user_stack_id=USER)
    (one,) = held_cgroups(named)
    assert [(stack.of, stack.sampled_bytes) for stack in one.charged_in] == [(kind, 9 * MIB)]


def test_allocated_before_is_the_window_of_a_kill(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    sampled(trace, 2.5, 40 * MIB)
    sampled(trace, 2.6, 90 * MIB, tgid=43)
    sampled(trace, 2.6, 90 * MIB, cgroup_id=8)
    members, begin, end = postmortem.allocated_before(trace, 1)
    rows = stack_samples.samples_within(trace.stack_samples, members, begin, end)
    assert sorted(rows["weight_bytes"].tolist()) == [40 * MIB, 90 * MIB]  # by two processes
    with pytest.raises(UsageError, match="there is no kill 2 in this trace: it holds kill 1"):
        postmortem.allocated_before(trace, 2)


def test_lost_stack_samples_do_not_count_as_lost_records(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    trace.add("loss", 3, begin=trace.ns(2), stream="stack_sample", lost=12)
    assert postmortem.explain(trace)[0].quality.lost_records == 0
    trace.add("loss", 3, begin=trace.ns(2), stream="charge", lost=3)
    assert postmortem.explain(trace)[0].quality.lost_records == 3
