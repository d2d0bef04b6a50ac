"""Synthetic stack samples: the rows that count, their sums, and unknown names."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain import postmortem
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results import report_frames
from tracer.analysis.results.memory import CodeFrame, GrownCode, GrownProcess, SampledMemory
from tracer.analysis.views import code_samples
from tracer.analysis.views.code_samples import (
    MOST_DEPTH,
    Charged,
    Growth,
    SampledStack,
    Samples,
    grown_code,
    grown_within,
    growth_tree,
)
from tracer.analysis.views.grown_functions import share_error
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


PAGE_FAULT, SLAB = 90_001, 90_002
_NUMBERS = count(70_000)


@pytest.fixture
def grown_code_named(trace: Any) -> Any:
    trace.add("tasks", tgid=41, start_ns=5, comm="work", first_seen=trace.ns(0))
    trace.add("tasks", tgid=44, start_ns=7, comm="work", first_seen=trace.ns(0))
    trace.add("tasks", tgid=43, start_ns=6, comm="other", first_seen=trace.ns(0))
    trace.add("stacks", stack_id=PAGE_FAULT, frames=["charge+0x4", "asm_exc_page_fault+0x22"])
    trace.add("stacks", stack_id=SLAB, frames=["kmem_cache_alloc_lru_noprof+0x4", "d_alloc+0x22"])
    return trace


def grown_code_sampled(trace: Any, weight: int, *frames: str, seconds: float = 1, **row: Any) -> None:
    """Add a sample of a stack, innermost frame first; without frames, there is no stack of the program."""
    stack_id = None
    if frames:
        stack_id = next(_NUMBERS)
        trace.add("stacks", stack_id=stack_id, frames=list(frames))
    known = {"cgroup_id": 7, "tgid": 41, "tid": 42, "category": "anon", "bytes": weight}
    trace.add("code_samples", seconds, **known | {"stack_id": stack_id, "kernel_stack_id": PAGE_FAULT} | row)


def shown(trace: Any, *kinds: str) -> list[tuple[str, float]]:
    """Return the innermost function of each code, and its share."""
    rows = Samples.from_rows(trace.code_samples)
    found = grown_code(trace, rows, kinds or ("anon", "shmem", "file", "kernel"))
    return [(one.frames[0].function if one.frames else "", round(one.share, 3)) for one in found]


def test_code_is_the_innermost_function_of_the_program(grown_code_named: Any) -> None:
    """Frames of the C library and of the interpreter are not shown, and lines of a function are one."""
    grown_code_sampled(
        grown_code_named, 5 * MIB, "__memset [libc.so.6]", "load [app.py:41]", "main [app.py:88]"
    )
    grown_code_sampled(grown_code_named, 2 * MIB, "load [app.py:42]", "main [app.py:88]")
    grown_code_sampled(
        grown_code_named,
        3 * MIB,
        "_PyObject_Malloc [libpython3.13.so.1.0]",
        "parse [app.py:17]",
        "main [app.py:89]",
    )
    rows = Samples.from_rows(grown_code_named.code_samples)
    main = CodeFrame("main", "app.py", 88, None)
    assert grown_code(grown_code_named, rows, ("anon",)) == (
        GrownCode(
            share=0.7,
            share_error=share_error(0.7, 100 / 38),
            bytes=7 * MIB,
            of="anon",
            process=GrownProcess(41, "work", 1),
            language="python",
            mapping=None,
            frames=(CodeFrame("load", "app.py", 41, None), main),
        ),
        GrownCode(
            share=0.3,
            share_error=share_error(0.3, 100 / 38),
            bytes=3 * MIB,
            of="anon",
            process=GrownProcess(41, "work", 1),
            language="python",
            mapping=None,
            frames=(CodeFrame("parse", "app.py", 17, None), CodeFrame("main", "app.py", 89, None)),
        ),
    )


def test_code_below_a_tenth_is_left_out(grown_code_named: Any) -> None:
    grown_code_sampled(grown_code_named, 91, "grow [work]")
    grown_code_sampled(grown_code_named, 9, "rare [work]")
    assert shown(grown_code_named) == [("grow", 0.91)]


def test_frames_end_where_callers_differ(grown_code_named: Any) -> None:
    for caller in "abc":
        grown_code_sampled(grown_code_named, MIB, "alloc [work]", f"read_{caller} [work]", "main [work]")
    rows = Samples.from_rows(grown_code_named.code_samples)
    (one,) = grown_code(grown_code_named, rows, ("anon",))
    assert [frame.function for frame in one.frames] == ["alloc"]


def test_stacks_of_processes_of_one_name_are_merged(grown_code_named: Any) -> None:
    for tgid, weight in ((41, 3), (44, 5), (43, 9)):
        grown_code_sampled(grown_code_named, weight, "grow [work]", tgid=tgid)
    rows = Samples.from_rows(grown_code_named.code_samples)
    found = grown_code(grown_code_named, rows, ("anon",))
    assert [(one.process, one.bytes) for one in found] == [
        (GrownProcess(43, "other", 1), 9),
        (GrownProcess(None, "work", 2), 8),
    ]


def test_only_samples_of_the_wanted_kinds_count(grown_code_named: Any) -> None:
    grown_code_sampled(grown_code_named, 4, "grow [work]")
    grown_code_sampled(grown_code_named, 9, "read [work]", category="file")
    grown_code_sampled(grown_code_named, 3, "share [work]", category="shmem")
    grown_code_sampled(grown_code_named, 2, category="sock")
    grown_code_sampled(grown_code_named, 5, "find [work]", category="kernel", kernel_stack_id=SLAB)
    assert shown(grown_code_named, "anon") == [("grow", 1)]
    assert shown(grown_code_named, "file") == [("read", 1)]
    assert shown(grown_code_named, "shmem") == [("share", 1)]
    assert shown(grown_code_named, "kernel") == [("find", 0.714), ("charge", 0.286)]
    rows = Samples.from_rows(grown_code_named.code_samples)
    assert [(one.of, one.language) for one in grown_code(grown_code_named, rows, ("kernel",))] == [
        ("slab", "native"),
        ("kernel", "kernel"),
    ]


@pytest.mark.parametrize(
    ("frames", "language"),
    [
        (["JS:*grow app.js:3:9", "node::Start [node]"], "node"),
        (["main.load [app]", "runtime.goexit.abi0 [app]"], "go"),
        (["Lcom/App;::load", "JavaMain [libjvm.so]"], "java"),
        (["void [a] A::Keep()[Optimized]", "RunMain() [libcoreclr.so]"], "dotnet"),
        (["grow [work]", "main [work]"], "native"),
    ],
)
def test_language_is_known_by_the_frames(grown_code_named: Any, frames: list[str], language: str) -> None:
    grown_code_sampled(grown_code_named, 1, *frames)
    (one,) = grown_code(grown_code_named, Samples.from_rows(grown_code_named.code_samples), ("anon",))
    assert one.language == language


def test_frame_has_a_row_for_each_function(grown_code_named: Any) -> None:
    grown_code_named.meta["filters"] = {"stacks_bytes": MIB}
    grown_code_named.add("cgroups", cgroup_id=7, path="/a", created=grown_code_named.ns(0))
    grown_code_named.charged(1, 7, "anon", 9 * MIB, tgid=41, usage_bytes=9 * MIB)
    grown_code_sampled(grown_code_named, 6 * MIB, "load [app.py:41]", "main [app.py:88]")
    grown_code_sampled(grown_code_named, 3 * MIB, kernel_stack_id=None)
    code = report_frames.code([], held_cgroups(grown_code_named))
    assert code["function"].tolist() == ["load", "[unknown]"]
    assert (code["callers"].tolist(), code["file"].isna().tolist()) == (["main", ""], [False, True])
    assert code["line"].tolist()[0] == 41
    assert code["share"].round(3).tolist() == [0.667, 0.333]
    assert code["kill_id"].isna().all()
    assert report_frames.code([], []).dtypes.equals(code.dtypes)


def test_share_is_that_of_the_growth_while_armed(grown_code_named: Any) -> None:
    """6 of 10 MiB grew while sampling was armed. Samples have 8: some memory was freed and came again."""
    grown_code_named.meta["filters"] = {"stacks_bytes": MIB}
    grown_code_named.add("cgroups", cgroup_id=7, path="/a", created=grown_code_named.ns(0))
    grown_code_named.charged(1, 7, "anon", 4 * MIB, tgid=41)
    grown_code_named.charged(2, 7, "anon", 6 * MIB, tgid=41)
    grown_code_named.add("armed", 1.7, begin=grown_code_named.ns(1.5), kind="anon")
    grown_code_named.add("armed", 2.5, begin=grown_code_named.ns(1.7), kind="anon")
    grown_code_named.add("armed", 2.5, begin=grown_code_named.ns(0), kind="file")
    for _ in range(8):
        grown_code_sampled(grown_code_named, MIB, "grow [work]", seconds=2)
    subtree = Subtrees(grown_code_named).subtree_at(7)
    found = grown_within(subtree, ("anon",), grown_code_named.ns(0), grown_code_named.ns(3))
    assert found.sampled_share == pytest.approx(0.6)
    assert [one.share for one in found.code] == [1]
    nothing = grown_within(subtree, ("shmem",), grown_code_named.ns(0), grown_code_named.ns(3))
    assert (nothing.code, nothing.sampled_share, nothing.why_unknown is not None) == ((), None, True)


def test_page_cache_that_was_evicted_again_had_been_sampled(grown_code_named: Any) -> None:
    """A cgroup at its limit reads 40 MiB, which evict 40 others: its page cache does not grow."""
    trace = grown_code_named
    trace.meta["filters"] = {"stacks_bytes": MIB}
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(1, 7, "file", 10 * MIB, tgid=41)
    trace.add("armed", 5, begin=trace.ns(1.5), kind="file")
    of_reclaim = {"op": "delete", "cause": "reclaim_memcg", "cgroup_id": 7, "nr_pages": 10 * MIB // 4096}
    for number in range(4):
        trace.add("pagecache", 2 + number / 10, inode_id=1, index=0, **of_reclaim)
    grown_code_sampled(trace, 40 * MIB, "read [work]", category="file", seconds=2)
    found = grown_within(Subtrees(trace).subtree_at(7), ("file",), trace.ns(0), trace.ns(3))
    assert found.sampled_share == pytest.approx(0.8)


def freed(trace: Any, sampled_s: float, seconds: float, weight: int) -> None:
    """Add the row in which the sample of a moment is freed."""
    row = {"sampled": trace.ns(sampled_s), "is_followed": False}
    sampled(trace, seconds, -weight, **row)


@pytest.fixture
def churning(grown_code_named: Any) -> Any:
    """A process that holds 6 MiB of `keep`, and gave 8 MiB of `scratch` back until second 3.5."""
    trace = grown_code_named
    trace.meta["filters"] = {"stacks_bytes": MIB}
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.add("armed", 5, begin=trace.ns(0), kind="anon")
    trace.charged(1, 7, "anon", 8 * MIB, tgid=41)
    trace.charged(2, 7, "anon", -2 * MIB, tgid=41)
    grown_code_sampled(trace, 8 * MIB, "scratch [work]", seconds=1, is_followed=True)
    grown_code_sampled(trace, 6 * MIB, "keep [work]", seconds=2, is_followed=True)
    freed(trace, 1, 3.5, 8 * MIB)
    return trace


def test_pages_that_malloc_touched_are_counted(churning: Any) -> None:
    """The first piece of a page may be of one function, and the others of another."""
    grown_code_sampled(churning, 3 * MIB, "[libc.so.6]+0x9", "malloc [libc.so.6]", "keep [work]", seconds=2)
    found = grown_within(Subtrees(churning).subtree_at(7), ("anon",), churning.ns(0), churning.ns(4))
    assert found.memory is not None
    assert (found.memory.held_bytes, found.memory.allocator_bytes) == (9 * MIB, 3 * MIB)
    assert [one.frames[0].function for one in found.code] == ["keep"]


def test_memory_that_was_freed_is_no_share_of_what_is_held(churning: Any) -> None:
    subtree = Subtrees(churning).subtree_at(7)
    at_the_end = grown_within(subtree, ("anon",), churning.ns(0), churning.ns(4))
    assert [(one.frames[0].function, one.share) for one in at_the_end.code] == [("keep", 1)]
    assert at_the_end.memory == SampledMemory(6 * MIB, 8 * MIB, 0, 4.0)
    assert at_the_end.sampled_share == 1
    before = grown_within(subtree, ("anon",), churning.ns(0), churning.ns(3))
    assert [one.frames[0].function for one in before.code] == ["scratch", "keep"]
    assert before.memory is not None
    assert before.memory.unseen_freed_bytes == 0, "it was followed, so what was freed is older"


def test_growth_that_is_sampled_again_was_not_freed_twice(churning: Any) -> None:
    """5 of the 8 MiB that a sample stood for when its page was freed were held, and are sampled again."""
    grown_code_sampled(churning, 7 * MIB, "keep [work]", seconds=3.6, is_followed=True, again_bytes=5 * MIB)
    found = grown_within(Subtrees(churning).subtree_at(7), ("anon",), churning.ns(0), churning.ns(4))
    assert found.memory is not None
    assert (found.memory.held_bytes, found.memory.freed_bytes) == (13 * MIB, 3 * MIB)


def test_samples_until_a_moment_are_those_that_are_held_then(churning: Any) -> None:
    def weights(end_ns: int) -> list[int]:
        return code_samples.held_within(churning, np.array([7]), None, end_ns)["bytes"].tolist()

    assert weights(churning.ns(3)) == [8 * MIB, 6 * MIB]
    assert weights(churning.ns(4)) == [6 * MIB]
    every = code_samples.samples_within(churning.code_samples, None)
    assert every["bytes"].tolist() == [8 * MIB, 6 * MIB]


def test_process_that_ended_holds_no_anonymous_memory(churning: Any) -> None:
    churning.add("tasks", tgid=50, start_ns=9, comm="gone", first_seen=churning.ns(1), exited=churning.ns(3))
    grown_code_sampled(churning, 3 * MIB, "grow [work]", seconds=2.5, tgid=50)
    grown_code_sampled(churning, 3 * MIB, "share [work]", seconds=2.5, tgid=50, category="shmem")
    subtree = Subtrees(churning).subtree_at(7)
    found = grown_within(subtree, ("anon", "shmem"), churning.ns(0), churning.ns(4))
    assert [one.frames[0].function for one in found.code] == ["keep", "share"]
    assert found.memory is not None
    assert found.memory.freed_bytes == 11 * MIB


@pytest.mark.parametrize(("weight", "unseen"), [(3 * MIB, 3 * MIB), (2 * MIB, 0)])
def test_freed_memory_that_nobody_followed_widens_the_error(churning: Any, weight: int, unseen: int) -> None:
    """The ledger shows that it was freed, as in traces of older versions. Samples are exact to one on each
    CPU."""
    grown_code_sampled(churning, weight, "read [work]", seconds=2.5)
    subtree = Subtrees(churning).subtree_at(7)
    found = grown_within(subtree, ("anon",), churning.ns(0), churning.ns(4))
    held = 6 * MIB + weight
    count = held**2 / ((6 * MIB) ** 2 + weight**2)
    assert found.memory == SampledMemory(held, 8 * MIB, unseen, 4.0)
    assert {one.frames[0].function: one.share_error for one in found.code} == {
        "keep": pytest.approx(share_error(6 * MIB / held, count) + unseen / held),
        "read": pytest.approx(share_error(weight / held, count) + unseen / held),
    }


def test_kill_has_the_code_of_the_kind_of_its_verdict(page_cache_experiment: Any) -> None:
    """Only samples of anonymous memory, in the limit owner, in the window before the kill count."""
    trace = page_cache_experiment
    (before,) = postmortem.explain(trace)
    assert (before.code, before.code_sampled_share) == ((), None)
    assert "--stacks" in before.quality.unknown["code_sampled_share"]
    trace.meta["filters"] = {"stacks_bytes": MIB}
    grown_code_sampled(trace, 40 * MIB, "grow [work]", "main [work]", seconds=2.5)
    grown_code_sampled(trace, 90 * MIB, "elsewhere [work]", seconds=2.6, cgroup_id=8)
    grown_code_sampled(trace, 90 * MIB, "elsewhere [work]", seconds=2.6, category="file")
    grown_code_sampled(trace, 90 * MIB, "elsewhere [work]", seconds=3.7)
    (report,) = postmortem.explain(trace)
    assert report.verdict.cause == "anon_growth"
    (one,) = report.code
    assert (one.process.pid, one.of, one.bytes, one.share) == (41, "anon", 40 * MIB, 1)
    assert [frame.function for frame in one.frames] == ["grow", "main"]
    assert report.code_sampled_share == 0, "sampling was not armed"


@pytest.mark.parametrize(
    ("frame", "tgid", "said"),
    [
        (
            "grow [work]",
            41,
            "Look for growth in grow (work), 100 % of the sampled growth, in python3 (pid 41): ",
        ),
        ("[work]+0x40", 41, "Look for growth in python3 (pid 41): it charged"),
        ("scavenge_block [work]", 41, "Look for growth in python3 (pid 41): it charged"),
        ("caml_empty_minor_heap_promote [work]", 41, "Look for growth in python3 (pid 41): it charged"),
        ("grow [work]", 43, "Look for growth in python3 (pid 41): it charged"),
    ],
)
def test_advice_names_the_code_of_the_process_that_grew(
    page_cache_experiment: Any, frame: str, tgid: int, said: str
) -> None:
    trace = page_cache_experiment
    trace.meta["filters"] = {"stacks_bytes": MIB}
    trace.add("armed", 3, begin=trace.ns(0), kind="anon")
    grown_code_sampled(trace, 40 * MIB, frame, "main [work]", seconds=2.5, tgid=tgid)
    (report,) = postmortem.explain(trace)
    (line,) = [line for line in report.advice if line.startswith("Look for growth")]
    assert line.startswith(said)


def test_advice_names_no_code_whose_memory_may_all_be_freed(page_cache_experiment: Any) -> None:
    """Sampling was not armed, so that nothing grew in it: by the ledger, what was sampled is gone again."""
    trace = page_cache_experiment
    trace.meta["filters"] = {"stacks_bytes": MIB}
    grown_code_sampled(trace, 40 * MIB, "grow [work]", seconds=2.5, tgid=41)
    (report,) = postmortem.explain(trace)
    assert report.code_memory is not None
    assert replace(report.code_memory, span_s=None) == SampledMemory(40 * MIB, 0, 40 * MIB)
    (line,) = [line for line in report.advice if line.startswith("Look for growth")]
    assert line.startswith("Look for growth in python3 (pid 41): it charged")


@pytest.mark.parametrize(("anon", "file", "kind"), [(9, 5, "anon"), (5, 9, "file")])
def test_held_has_the_code_of_its_largest_kind(
    grown_code_named: Any, anon: int, file: int, kind: str
) -> None:
    grown_code_named.meta["filters"] = {"stacks_bytes": MIB}
    grown_code_named.add("cgroups", cgroup_id=7, path="/a", created=grown_code_named.ns(0))
    grown_code_named.charged(1, 7, "file", file * MIB, tgid=41, usage_bytes=file * MIB)
    grown_code_named.charged(2, 7, "anon", anon * MIB, tgid=41, usage_bytes=(anon + file) * MIB)
    grown_code_sampled(grown_code_named, file * MIB, "read [work]", category="file")
    grown_code_sampled(grown_code_named, anon * MIB, "grow [work]", seconds=2)
    (one,) = held_cgroups(grown_code_named)
    assert [(code.of, code.bytes) for code in one.code] == [(kind, 9 * MIB)]


@given(share=st.floats(0.1, 0.9), count=st.integers(20, 400))
def test_true_share_lies_within_the_error_in_95_of_100_cases(share: float, count: int) -> None:
    """By all results of so many draws, each with its probability."""
    drawn = range(count + 1)
    chances = [math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in drawn]
    held = [abs(n / count - share) <= share_error(n / count, count) for n in drawn]
    within = sum(chance for chance, is_held in zip(chances, held, strict=True) if is_held)
    assert 0.93 < within <= 1.001


def test_lines_of_a_native_function_are_one_code_with_its_heaviest_line(grown_code_named: Any) -> None:
    """Some of its instructions have no line: they are the compiler's own."""
    grown_code_sampled(grown_code_named, 4 * MIB, "load [work]", "main [work] (rows.c:88)")
    grown_code_sampled(grown_code_named, 2 * MIB, "load [work] (rows.c:40)", "main [work] (rows.c:88)")
    grown_code_sampled(grown_code_named, 3 * MIB, "load [work] (rows.c:41)", "main [work] (rows.c:88)")
    (one,) = grown_code(grown_code_named, Samples.from_rows(grown_code_named.code_samples), ("anon",))
    assert (one.share, one.language) == (1, "native")
    assert one.frames == (CodeFrame("load", "rows.c", 41, "work"), CodeFrame("main", "rows.c", 88, "work"))


def stack(
    weight: int, *user: str, comm: str = "work", category: str = "anon", kernel: tuple[str, ...] = ()
) -> SampledStack:
    return SampledStack("/a", None, comm, 41, category, user, kernel, weight)


def growth_tree_shown(tree: tuple[Growth, ...]) -> dict[str, object]:
    return {f"{one.frame.function} {one.what}": (one.bytes, growth_tree_shown(one.below)) for one in tree}


def test_tree_has_each_caller_once_with_the_bytes_below_it() -> None:
    libc = "[libc.so.6]+0x17c3"
    tree = growth_tree(
        [
            stack(5, f"{libc}80", "parse [work]", "main [work]"),
            stack(2, f"{libc}99", "parse [work]", "main [work]"),
            stack(3, "index [work]", "main [work]"),
            stack(4, "main [work]"),
            stack(9, "run [other]", comm="other"),
        ]
    )
    parse: tuple[int, object] = (7, {"[libc.so.6] library": (7, {})})
    main = (14, {"parse program": parse, "index program": (3, {})})
    assert growth_tree_shown(tree) == {
        "work process": (14, {"main program": main}),
        "other process": (9, {"run program": (9, {})}),
    }


def test_lines_of_one_function_are_one_frame_with_the_heaviest_line() -> None:
    (process,) = growth_tree([stack(3, "load [app.py:41]"), stack(5, "load [app.py:44]")])
    assert process.below == (Growth(CodeFrame("load", "app.py", 44, None), "program", 8, ()),)


def test_kernel_frames_are_kept_where_they_tell_something() -> None:
    kernel = ("kmem_cache_alloc", "alloc_inode")
    assert growth_tree_shown(growth_tree([stack(5, "main [work]", kernel=kernel)])) == {
        "work process": (5, {"main program": (5, {})})
    }
    inner: dict[str, object] = {"alloc_inode kernel": (5, {"kmem_cache_alloc kernel": (5, {})})}
    assert growth_tree_shown(growth_tree([stack(5, kernel=kernel)])) == {"work process": (5, inner)}
    slab = growth_tree([stack(5, "main [work]", category="kernel", kernel=kernel)])
    assert growth_tree_shown(slab) == {"work process": (5, {"main program": (5, inner)})}


def test_deep_stacks_are_cut_and_thin_frames_left_out() -> None:
    deep = [f"f{number} [work]" for number in range(500)]
    (process,) = growth_tree([stack(1000, *deep), stack(1, "rare [work]")])
    assert process.bytes == 1001
    depth, node = 0, process
    while node.below:
        (node,) = node.below
        depth += 1
    assert depth == MOST_DEPTH
    assert process.below[0].frame.function == "f499"


@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.lists(st.sampled_from("abc"), max_size=5))))
def test_bytes_below_are_never_more_than_those_above(stacks: list[tuple[int, list[str]]]) -> None:
    tree = growth_tree(stack(weight, *names) for weight, names in stacks)
    assert sum(one.bytes for one in tree) == sum(weight for weight, _ in stacks)
    ahead = list(tree)
    while ahead:
        node = ahead.pop()
        assert sum(one.bytes for one in node.below) <= node.bytes
        assert list(node.below) == sorted(node.below, key=lambda one: -one.bytes)
        ahead += node.below


def test_no_samples_give_no_tree() -> None:
    assert growth_tree([]) == ()
