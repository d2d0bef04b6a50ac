"""The cause of a kill, by findings of known composition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain import verdict
from tracer.analysis.explain.advice import advise
from tracer.analysis.explain.measure.cushion import Window
from tracer.analysis.explain.measure.findings import Circumstances, Findings, Holder, Swap
from tracer.analysis.results.kill import LimitOwner
from tracer.analysis.results.memory import COMPOSITION_PARTS, Composition, Cushion
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Candidate, Trigger, Victim

MIB = 1 << 20
LIMIT = 100 * MIB
SECOND = 1_000_000_000
GFP_KERNEL = 0xCC0
GFP_NOFS = 0xC40


def made_of(**mib: float) -> Composition:
    """What is not named is 0, and `other` is what is left of the limit."""
    parts = dict.fromkeys(COMPOSITION_PARTS, 0) | {name: round(value * MIB) for name, value in mib.items()}
    return Composition(**parts | {"other": LIMIT - sum(parts.values())}, total=LIMIT)


def grew(**mib: int) -> Circumstances:
    return Circumstances({name: mib.get(name, 0) * MIB for name in ("anon", "shmem", "kernel", "sock")})


def findings(composition: Composition, around: Circumstances, **others: Any) -> Findings:
    return Findings(
        **{
            "time": "2026-01-31T12:00:00.000000+00:00",
            "constraint": "memcg",
            "owner": LimitOwner("/a", None, None, LIMIT, LIMIT, False),
            "trigger": Trigger(41, "sh", "/a", GFP_KERNEL, 0, None, None, tgid=41),
            "victims": [Victim(41, "sh", "/a", 0, 0, 0, 0, 0, 0, False)],
            "victim_tgids": frozenset({41}),
            "composition": composition,
            "cushion": Cushion(0, 0, 0, 0, None, 0),
            "reclaim": Reclaim(16, 0, 0, 1.0, ()),
            "allocators": (),
            "page_size": 4096,
            "window": Window(0, 5 * SECOND, 10 * SECOND),
            "circumstances": around,
            "is_told": True,
        }
        | others
    )


CASES = [
    ("anon_growth", made_of(anon=97, page_tables=1), grew(anon=60, kernel=1), {}),
    ("shmem", made_of(anon=9, shmem=89), grew(anon=1, shmem=80), {}),
    # A service that lives on process memory dies of what came on top.
    ("shmem", made_of(anon=61, shmem=37), grew(anon=1, shmem=36), {}),
    ("unevictable", made_of(anon=5, unevictable=93), grew(anon=97), {}),
    ("kernel_memory", made_of(anon=9, slab_unreclaimable=80), grew(anon=2, kernel=80), {}),
    ("kernel_memory", made_of(anon=9, page_tables=88), grew(anon=2, kernel=88), {}),
    ("kernel_memory", made_of(anon=9, sock=88), grew(anon=2, sock=88), {}),
    ("dirty_writeback", made_of(anon=9, file_dirty=70, writeback=17, file_clean=2), grew(anon=2), {}),
    (
        "dirty_writeback",
        made_of(anon=9, writeback=90),
        grew(kernel=1),
        {"trigger": Trigger(41, "sh", "/a", GFP_NOFS, 0, None, None)},
    ),
    ("dirty_writeback", made_of(anon=58, file_dirty=37, file_clean=3), grew(anon=40), {}),
    (
        "protected_cache",
        made_of(anon=40, file_clean=57),
        replace(grew(anon=40), protected_bytes=55 * MIB),
        {},
    ),
    (
        "gfp_constrained",
        made_of(anon=40, slab_reclaimable=54, file_clean=5),
        grew(anon=40),
        {"trigger": Trigger(41, "sh", "/a", GFP_NOFS, 0, None, None)},
    ),
    (
        "swap_exhausted",
        made_of(anon=98),
        replace(grew(anon=90), swap=Swap(50 * MIB, 50 * MIB, False)),
        {},
    ),
    ("swap_exhausted", made_of(anon=98), replace(grew(anon=90), swap=Swap(50 * MIB, None, True)), {}),
    ("global_pressure", Composition(*[None] * 15), Circumstances(), {"constraint": "global"}),
    ("unknown", Composition(*[None] * 15), Circumstances(), {}),
    ("unknown", made_of(anon=50, file_clean=49), grew(anon=50), {}),
]


@pytest.mark.parametrize(("cause", "composition", "around", "others"), CASES)
def test_cause(cause: str, composition: Composition, around: Circumstances, others: dict[str, Any]) -> None:
    found = findings(composition, around, **others)
    judged = verdict.judge(found)
    assert judged.cause == cause
    assert (advise(found, judged) == ()) == (cause == "unknown")
    if cause != "unknown":
        assert judged.suspects[0].cause == cause
        assert judged.confidence in ("high", "medium")
    assert [one.weight for one in judged.suspects] == sorted(
        (one.weight for one in judged.suspects), reverse=True
    )


def test_what_the_summary_says_of_each_cause() -> None:
    said = {
        cause: verdict.judge(findings(parts, around, **more)).summary for cause, parts, around, more in CASES
    }
    assert "93 MiB of it locked (mlock) or on ramfs" in said["unevictable"]
    assert "88 MiB of that socket buffers" in said["kernel_memory"]
    assert "37 MiB of it file contents that were not yet written to disk" in said["dirty_writeback"]
    assert "55 MiB of it page cache that memory.min" in said["protected_cache"]
    assert "its swap was full (50 MiB)" in said["swap_exhausted"]
    assert "whole machine" in said["global_pressure"]
    assert said["unknown"].endswith("No known cause fits these numbers.")


def test_each_doubt_costs_a_step() -> None:
    sure = findings(made_of(anon=97), grew(anon=97))
    doubted = [
        (sure, "high"),
        (replace(sure, lost_records=1), "medium"),
        (replace(sure, sampled_at_kill=False), "medium"),
        (replace(sure, is_told=False), "medium"),
        (replace(sure, is_told=False, kmsg="matched"), "high"),
        (replace(sure, is_told=False, kmsg="rate_limited"), "high"),
        (replace(sure, kmsg="only", window=None), "medium"),
        (replace(sure, lost_records=1, sampled_at_kill=False), "low"),
    ]
    for found, confidence in doubted:
        assert verdict.judge(found).confidence == confidence
    close = findings(made_of(anon=50, shmem=49), grew(anon=50, shmem=49))
    evidence = verdict.judge(close).evidence
    assert "doubt: shmem is nearly as likely" in evidence[-1]
    assert not any(line.startswith("not shmem") for line in evidence)


def victim(pid: int, comm: str) -> Victim:
    return Victim(pid, comm, "/a", 0, 0, 0, 0, 0, 0, False)


def test_the_first_sentence_names_who_was_killed() -> None:
    found = findings(made_of(anon=97), grew(anon=97))
    for changes, said in (
        ({}, "sh (pid 41) asked for more memory and was killed: the cgroup /a was at its limit"),
        (
            {"victims": [victim(7, "b")]},
            "sh (pid 41) asked for more memory, and b (pid 7) was killed for it: ",
        ),
        # Who asked was a thread of who was killed.
        (
            {"victims": [victim(7, "b")], "trigger_tgid": 7, "victim_tgids": frozenset({7})},
            "b (pid 7) asked for more memory and was killed: ",
        ),
        (
            {"victims": [victim(7, "b"), victim(41, "sh")]},
            "sh (pid 41) asked for more memory, and 2 processes were killed for it: ",
        ),
        ({"victims": []}, "sh (pid 41) asked for more memory: the cgroup /a"),
        ({"constraint": "global"}, "sh (pid 41) asked for memory and was killed: the whole machine had none"),
    ):
        assert verdict.judge(replace(found, **changes)).summary.startswith(said)


def test_the_first_sentence_names_every_kind_that_fills_a_good_part() -> None:
    mixed = findings(made_of(anon=42, shmem=39, page_tables=18), grew(anon=42, shmem=39, kernel=18))
    assert "42 MiB of it anonymous memory beside 39 MiB of shared memory; " in verdict.judge(mixed).summary
    plain = findings(made_of(anon=79, shmem=19), grew(anon=79, shmem=19))
    assert "79 MiB of it anonymous memory; " in verdict.judge(plain).summary


def weighed(pid: int, held: int, adj: int = 0, *, chosen: bool = False) -> Candidate:
    return Candidate(pid, "sh", held, adj, held * 4096, chosen, held, 0)


@pytest.mark.parametrize(
    ("adjs", "said"),
    [
        (
            (500, 0),
            "sh (pid 41) was killed for its oom_score_adj of 500: it held 40 KiB, and sh (pid 42) 80 KiB",
        ),
        ((0, -900), "oom_score_adj of -900 spared the larger one"),
        ((0, 0), None),
    ],
)
def test_who_was_killed_for_an_oom_score_adj(adjs: tuple[int, int], said: str | None) -> None:
    candidates = (weighed(41, 10, adjs[0], chosen=True), weighed(42, 20, adjs[1]))
    found = findings(made_of(anon=97), grew(anon=97), candidates=candidates)
    sentences = [line for line in verdict.judge(found).contributing if "oom_score_adj" in line]
    assert [said is not None and said in line for line in sentences] == ([] if said is None else [True])


def test_many_small_processes_are_looked_at_together() -> None:
    many = tuple(weighed(100 + number, 500, chosen=not number) for number in range(50))
    found = findings(made_of(anon=97), grew(anon=97), candidates=many)
    judged = verdict.judge(found)
    assert "the memory is spread over 50 processes; the largest held 2.0 MiB" in judged.contributing
    assert any("what starts so many processes (50)" in line for line in advise(found, judged))
    few = replace(found, candidates=many[:9])
    assert not any("spread" in line for line in verdict.judge(few).contributing)


def test_kernel_memory_without_counters_is_said_to_be_so() -> None:
    found = findings(made_of(anon=9), grew(anon=2, kernel=80))
    judged = verdict.judge(found)
    assert "91 MiB of that whole pages that no counter tells apart" in judged.summary
    assert any("Pipes and Unix sockets" in line for line in advise(found, judged))
    # cgroup v1's part of a kernel log has none of these counters.
    untold = replace(found, composition=replace(found.composition, slab_reclaimable=None))
    assert "of that memory of unknown kinds" in verdict.judge(untold).summary


def test_what_else_played_a_part() -> None:
    around = Circumstances(
        grown_bytes={"anon": 60 * MIB, "shmem": 0, "kernel": 0, "sock": 0},
        rise_ns=SECOND,
        swap=Swap(0, 0, False),
        protected_bytes=3 * MIB,
        holders=(Holder("big", 61 * MIB, False), Holder("small", 38 * MIB, True)),
        dying_bytes=7 * MIB,
        dirty_wait_ms=1250.0,
    )
    parts = made_of(anon=70, page_tables=6, shmem=8, file_dirty=9, file_clean=7)
    owner = LimitOwner("/a", None, None, LIMIT, LIMIT, True)
    found = findings(
        parts, around, owner=owner, trigger=Trigger(41, "sh", "/a/small", GFP_NOFS, 0, None, None)
    )
    sentences = verdict.judge(found).contributing
    for expected in (
        "the limit is an ancestor's",
        "a sibling holds most of the memory: big 61 MiB, small 38 MiB (who asked is in it)",
        "6.0 % of usage was page tables",
        "8.0 % of usage was shared memory",
        "9.0 % of usage was page cache that was not yet written",
        "it came in a burst: four fifths of 60 MiB within 1 s, after 9 s of calm",
        "swap is off for this cgroup",
        "memory.min keeps 3 MiB",
        "writers were held back for 1.25 s",
        "not allowed to enter file systems",
        "removed cgroups (dying ones) still held 7 MiB",
        "7 MiB of clean page cache were left",
    ):
        assert any(sentence.startswith(expected) or expected in sentence for sentence in sentences), expected


def test_a_slow_growth_is_told_from_a_burst() -> None:
    around = replace(grew(anon=90), rise_ns=3600 * SECOND)
    found = findings(made_of(anon=97), around, window=Window(0, 0, 4500 * SECOND))
    assert any(
        sentence == "it grew slowly: 1.2 MiB a minute over 1 h 00 min, as a leak would"
        for sentence in verdict.judge(found).contributing
    )


@given(st.dictionaries(st.sampled_from(COMPOSITION_PARTS), st.integers(-(1 << 20), 1 << 40) | st.none()))
def test_any_composition_is_judged(parts: dict[str, int | None]) -> None:
    composition = Composition(**dict.fromkeys(COMPOSITION_PARTS) | parts, total=LIMIT)
    found = findings(composition, Circumstances())
    judged = verdict.judge(found)
    assert judged.summary
    assert all(0 < one.weight <= 1 for one in judged.suspects)
