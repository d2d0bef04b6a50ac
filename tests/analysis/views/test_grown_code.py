"""Synthetic samples of growth: which code is shown, with which share."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain import postmortem
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results import report_frames
from tracer.analysis.results.memory import CodeFrame, GrownCode, GrownProcess
from tracer.analysis.views.grown_code import Samples, grown_code, grown_within
from tracer.analysis.views.grown_functions import share_error

MIB = 1 << 20
KERNEL, SLAB = 90_001, 90_002
_NUMBERS = count(70_000)


@pytest.fixture
def named(trace: Any) -> Any:
    trace.add("tasks", tgid=41, start_ns=5, comm="work", first_seen=trace.ns(0))
    trace.add("tasks", tgid=44, start_ns=7, comm="work", first_seen=trace.ns(0))
    trace.add("tasks", tgid=43, start_ns=6, comm="other", first_seen=trace.ns(0))
    trace.add("stacks", stack_id=KERNEL, frames=["charge+0x4", "asm_exc_page_fault+0x22"])
    trace.add("stacks", stack_id=SLAB, frames=["kmem_cache_alloc_lru_noprof+0x4", "d_alloc+0x22"])
    return trace


def sampled(trace: Any, weight: int, *frames: str, seconds: float = 1, **row: Any) -> None:
    """Add a sample of a stack, innermost frame first; without frames, there is no stack of the program."""
    stack_id = None
    if frames:
        stack_id = next(_NUMBERS)
        trace.add("stacks", stack_id=stack_id, frames=list(frames))
    known = {"cgroup_id": 7, "tgid": 41, "tid": 42, "category": "anon", "bytes": weight}
    trace.add("code_samples", seconds, **known | {"stack_id": stack_id, "kernel_stack_id": KERNEL} | row)


def shown(trace: Any, *kinds: str) -> list[tuple[str, float]]:
    """Return the innermost function of each code, and its share."""
    rows = Samples.from_rows(trace.code_samples)
    found = grown_code(trace, rows, kinds or ("anon", "shmem", "file", "kernel"))
    return [(one.frames[0].function if one.frames else "", round(one.share, 3)) for one in found]


def test_code_is_the_innermost_function_of_the_program(named: Any) -> None:
    """Frames of the C library and of the interpreter are not shown, and lines of a function are one."""
    sampled(named, 5 * MIB, "__memset [libc.so.6]", "load [app.py:41]", "main [app.py:88]")
    sampled(named, 2 * MIB, "load [app.py:42]", "main [app.py:88]")
    sampled(
        named, 3 * MIB, "_PyObject_Malloc [libpython3.13.so.1.0]", "parse [app.py:17]", "main [app.py:89]"
    )
    rows = Samples.from_rows(named.code_samples)
    main = CodeFrame("main", "app.py", 88, None)
    assert grown_code(named, rows, ("anon",)) == (
        GrownCode(
            share=0.7,
            share_error=share_error(0.7, 3),
            bytes=7 * MIB,
            of="anon",
            process=GrownProcess(41, "work", 1),
            language="python",
            mapping=None,
            frames=(CodeFrame("load", "app.py", 41, None), main),
        ),
        GrownCode(
            share=0.3,
            share_error=share_error(0.3, 3),
            bytes=3 * MIB,
            of="anon",
            process=GrownProcess(41, "work", 1),
            language="python",
            mapping=None,
            frames=(CodeFrame("parse", "app.py", 17, None), CodeFrame("main", "app.py", 89, None)),
        ),
    )


def test_code_below_a_tenth_is_left_out(named: Any) -> None:
    sampled(named, 91, "grow [work]")
    sampled(named, 9, "rare [work]")
    assert shown(named) == [("grow", 0.91)]


def test_frames_end_where_callers_differ(named: Any) -> None:
    for caller in "abc":
        sampled(named, MIB, "alloc [work]", f"read_{caller} [work]", "main [work]")
    rows = Samples.from_rows(named.code_samples)
    (one,) = grown_code(named, rows, ("anon",))
    assert [frame.function for frame in one.frames] == ["alloc"]


def test_stacks_of_processes_of_one_name_are_merged(named: Any) -> None:
    for tgid, weight in ((41, 3), (44, 5), (43, 9)):
        sampled(named, weight, "grow [work]", tgid=tgid)
    rows = Samples.from_rows(named.code_samples)
    found = grown_code(named, rows, ("anon",))
    assert [(one.process, one.bytes) for one in found] == [
        (GrownProcess(43, "other", 1), 9),
        (GrownProcess(None, "work", 2), 8),
    ]


def test_only_samples_of_the_wanted_kinds_count(named: Any) -> None:
    sampled(named, 4, "grow [work]")
    sampled(named, 9, "read [work]", category="file")
    sampled(named, 3, "share [work]", category="shmem")
    sampled(named, 2, category="sock")
    sampled(named, 5, "find [work]", category="kernel", kernel_stack_id=SLAB)
    assert shown(named, "anon") == [("grow", 1)]
    assert shown(named, "file") == [("read", 1)]
    assert shown(named, "shmem") == [("share", 1)]
    assert shown(named, "kernel") == [("find", 0.714), ("charge", 0.286)]
    rows = Samples.from_rows(named.code_samples)
    assert [(one.of, one.language) for one in grown_code(named, rows, ("kernel",))] == [
        ("slab", "native"),
        ("kernel", "kernel"),
    ]


@pytest.mark.parametrize(
    ("frames", "language"),
    [
        (["JS:*grow app.js:3:9", "node::Start [node]"], "node"),
        (["main.load [app]", "runtime.goexit.abi0 [app]"], "go"),
        (["Lcom/App;::load", "JavaMain [libjvm.so]"], "java"),
        (["grow [work]", "main [work]"], "native"),
    ],
)
def test_language_is_known_by_the_frames(named: Any, frames: list[str], language: str) -> None:
    sampled(named, 1, *frames)
    (one,) = grown_code(named, Samples.from_rows(named.code_samples), ("anon",))
    assert one.language == language


def test_frame_has_a_row_for_each_function(named: Any) -> None:
    named.meta["filters"] = {"stacks_bytes": MIB}
    named.add("cgroups", cgroup_id=7, path="/a", created=named.ns(0))
    named.charged(1, 7, "anon", 9 * MIB, tgid=41, usage_bytes=9 * MIB)
    sampled(named, 6 * MIB, "load [app.py:41]", "main [app.py:88]")
    sampled(named, 3 * MIB, kernel_stack_id=None)
    code = report_frames.code([], held_cgroups(named))
    assert code["function"].tolist() == ["load", "[unknown]"]
    assert (code["callers"].tolist(), code["file"].isna().tolist()) == (["main", ""], [False, True])
    assert code["line"].tolist()[0] == 41
    assert code["share"].round(3).tolist() == [0.667, 0.333]
    assert code["kill_id"].isna().all()
    assert report_frames.code([], []).dtypes.equals(code.dtypes)


def test_share_is_that_of_the_growth_while_armed(named: Any) -> None:
    """6 of 10 MiB grew while sampling was armed. Samples have 8: some memory was freed and came again."""
    named.meta["filters"] = {"stacks_bytes": MIB}
    named.add("cgroups", cgroup_id=7, path="/a", created=named.ns(0))
    named.charged(1, 7, "anon", 4 * MIB, tgid=41)
    named.charged(2, 7, "anon", 6 * MIB, tgid=41)
    named.add("armed", 1.7, begin=named.ns(1.5), kind="anon")
    named.add("armed", 2.5, begin=named.ns(1.7), kind="anon")
    named.add("armed", 2.5, begin=named.ns(0), kind="file")
    for _ in range(8):
        sampled(named, MIB, "grow [work]", seconds=2)
    subtree = Subtrees(named).subtree_at(7)
    found = grown_within(subtree, ("anon",), named.ns(0), named.ns(3))
    assert found.sampled_share == pytest.approx(0.6)
    assert [one.share for one in found.code] == [1]
    nothing = grown_within(subtree, ("shmem",), named.ns(0), named.ns(3))
    assert (nothing.code, nothing.sampled_share, nothing.why_unknown is not None) == ((), None, True)


def test_kill_has_the_code_of_the_kind_of_its_verdict(page_cache_experiment: Any) -> None:
    """Only samples of anonymous memory, in the limit owner, in the window before the kill count."""
    trace = page_cache_experiment
    (before,) = postmortem.explain(trace)
    assert (before.code, before.code_sampled_share) == ((), None)
    assert "--stacks" in before.quality.unknown["code_sampled_share"]
    trace.meta["filters"] = {"stacks_bytes": MIB}
    sampled(trace, 40 * MIB, "grow [work]", "main [work]", seconds=2.5)
    sampled(trace, 90 * MIB, "elsewhere [work]", seconds=2.6, cgroup_id=8)
    sampled(trace, 90 * MIB, "elsewhere [work]", seconds=2.6, category="file")
    sampled(trace, 90 * MIB, "elsewhere [work]", seconds=3.7)
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
        ("grow [work]", 43, "Look for growth in python3 (pid 41): it charged"),
    ],
)
def test_advice_names_the_code_of_the_process_that_grew(
    page_cache_experiment: Any, frame: str, tgid: int, said: str
) -> None:
    trace = page_cache_experiment
    trace.meta["filters"] = {"stacks_bytes": MIB}
    sampled(trace, 40 * MIB, frame, "main [work]", seconds=2.5, tgid=tgid)
    (report,) = postmortem.explain(trace)
    (line,) = [line for line in report.advice if line.startswith("Look for growth")]
    assert line.startswith(said)


@pytest.mark.parametrize(("anon", "file", "kind"), [(9, 5, "anon"), (5, 9, "file")])
def test_held_has_the_code_of_its_largest_kind(named: Any, anon: int, file: int, kind: str) -> None:
    named.meta["filters"] = {"stacks_bytes": MIB}
    named.add("cgroups", cgroup_id=7, path="/a", created=named.ns(0))
    named.charged(1, 7, "file", file * MIB, tgid=41, usage_bytes=file * MIB)
    named.charged(2, 7, "anon", anon * MIB, tgid=41, usage_bytes=(anon + file) * MIB)
    sampled(named, file * MIB, "read [work]", category="file")
    sampled(named, anon * MIB, "grow [work]", seconds=2)
    (one,) = held_cgroups(named)
    assert [(code.of, code.bytes) for code in one.code] == [(kind, 9 * MIB)]


@given(share=st.floats(0.1, 0.9), count=st.integers(20, 400))
def test_true_share_lies_within_the_error_in_95_of_100_cases(share: float, count: int) -> None:
    """By all results of so many draws, each with its probability."""
    drawn = range(count + 1)
    chances = [math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in drawn]
    held = [abs(n / count - share) <= share_error(n / count, count) for n in drawn]
    within = sum(chance for chance, is_held in zip(chances, held, strict=True) if is_held)
    assert 0.93 < within <= 1.001


def test_lines_of_a_native_function_are_one_code_with_its_heaviest_line(named: Any) -> None:
    """Some of its instructions have no line: they are the compiler's own."""
    sampled(named, 4 * MIB, "load [work]", "main [work] (rows.c:88)")
    sampled(named, 2 * MIB, "load [work] (rows.c:40)", "main [work] (rows.c:88)")
    sampled(named, 3 * MIB, "load [work] (rows.c:41)", "main [work] (rows.c:88)")
    (one,) = grown_code(named, Samples.from_rows(named.code_samples), ("anon",))
    assert (one.share, one.language) == (1, "native")
    assert one.frames == (CodeFrame("load", "rows.c", 41, "work"), CodeFrame("main", "rows.c", 88, "work"))
