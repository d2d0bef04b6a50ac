"""The verdict on a kill, from findings with a known composition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evidence import kinds_of
from synthetic.findings import (
    GFP_KERNEL,
    GFP_NOFS,
    LIMIT,
    MIB,
    UNKNOWN_COMPOSITION,
    findings,
    grew,
    made_of,
    trigger,
    victim,
)

from tracer.analysis.explain import verdict
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.measure.findings import Circumstances, Shortage, Swap
from tracer.analysis.explain.words.advice import advise
from tracer.analysis.results.memory import COMPOSITION_PARTS, Composition

CASES: list[tuple[str, Composition, Circumstances, dict[str, Any]]] = [
    ("anon_growth", made_of(anon=97, page_tables=1), grew(anon=60, kernel=1), {}),
    ("shmem", made_of(anon=9, shmem=89), grew(anon=1, shmem=80), {}),
    # The limit is mostly full of process memory, but shared memory grew: the latter is the cause.
    ("shmem", made_of(anon=61, shmem=37), grew(anon=1, shmem=36), {}),
    ("unevictable", made_of(anon=5, unevictable=93), grew(anon=97), {}),
    ("kernel_memory", made_of(anon=9, slab_unreclaimable=80), grew(anon=2, kernel=80), {}),
    ("kernel_memory", made_of(anon=9, page_tables=88), grew(anon=2, kernel=88), {}),
    ("kernel_memory", made_of(anon=9, sock=88), grew(anon=2, sock=88), {}),
    ("dirty_writeback", made_of(anon=9, file_dirty=70, writeback=17, file_clean=2), grew(anon=2), {}),
    ("dirty_writeback", made_of(anon=9, writeback=90), grew(kernel=1), {"trigger": trigger(GFP_NOFS)}),
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
        {"trigger": trigger(GFP_NOFS)},
    ),
    (
        "swap_exhausted",
        made_of(anon=98),
        replace(grew(anon=90), swap=Swap(50 * MIB, 50 * MIB, False)),
        {},
    ),
    ("swap_exhausted", made_of(anon=98), replace(grew(anon=90), swap=Swap(50 * MIB, None, True)), {}),
    ("global_pressure", UNKNOWN_COMPOSITION, Circumstances(), {"constraint": "global"}),
    ("unknown", UNKNOWN_COMPOSITION, Circumstances(), {}),
    ("unknown", made_of(anon=50, file_clean=49), grew(anon=50), {}),
    (
        "unknown",
        UNKNOWN_COMPOSITION,
        Circumstances(shortage=Shortage("policy", is_seen=False)),
        {"constraint": "global"},
    ),
]


@pytest.mark.parametrize(("cause", "composition", "around", "others"), CASES)
def test_judge_known_composition_names_the_cause(
    cause: str, composition: Composition, around: Circumstances, others: dict[str, Any]
) -> None:
    found = findings(composition, around, **others)
    judged = verdict.judge(found)
    assert judged.cause == cause
    assert (advise(found, judged.cause) == ()) == (cause == "unknown")
    if cause != "unknown":
        assert judged.suspects[0].cause == cause
        assert judged.confidence in ("high", "medium")
    assert [one.weight for one in judged.suspects] == sorted(
        (one.weight for one in judged.suspects), reverse=True
    )


def test_every_cause_has_a_case() -> None:
    assert {cause for cause, *_ in CASES} == set(CAUSES)


def test_summary_of_each_cause_states_its_numbers() -> None:
    summaries = {
        cause: verdict.judge(findings(parts, around, **more)).summary for cause, parts, around, more in CASES
    }
    assert "93 MiB of it locked (mlock) or on ramfs" in summaries["unevictable"]
    assert "88 MiB of that socket buffers" in summaries["kernel_memory"]
    assert "37 MiB of it file contents that were not yet written to disk" in summaries["dirty_writeback"]
    assert "55 MiB of it page cache that memory.min" in summaries["protected_cache"]
    assert "59 MiB of it cache and slab that reclaim could not free" in summaries["gfp_constrained"]
    assert "its swap was full (50 MiB)" in summaries["swap_exhausted"]
    assert "whole machine" in summaries["global_pressure"]
    assert summaries["unknown"].endswith("a BPF policy invoked the OOM killer.")
    unknown = verdict.judge(findings(made_of(anon=50, file_clean=49), grew(anon=50))).summary
    assert unknown.endswith("No known cause fits these numbers.")


def test_protected_cache_and_nofs_request_of_equal_weight_names_the_protection() -> None:
    """A request that may enter file systems could not free the protected cache either."""
    around = replace(grew(), protected_bytes=90 * MIB)
    judged = verdict.judge(findings(made_of(file_clean=90), around, trigger=trigger(GFP_NOFS)))
    first, second = judged.suspects[:2]
    assert (first.cause, second.cause) == ("protected_cache", "gfp_constrained")
    assert first.weight == second.weight


def test_each_doubt_lowers_confidence_by_a_step() -> None:
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
        judged = verdict.judge(found)
        assert judged.confidence == confidence
        assert sum(item.is_doubt for item in judged.evidence) == ["high", "medium", "low"].index(confidence)


def test_cause_of_nearly_the_same_weight_is_a_doubt() -> None:
    evidence = verdict.judge(findings(made_of(anon=50, shmem=49), grew(anon=50, shmem=49))).evidence
    assert (evidence[-1].kind, evidence[-1].numbers["cause"]) == ("doubt_close_cause", "shmem")
    assert "other_cause" not in kinds_of(evidence)


def test_cause_of_much_less_weight_is_evidence() -> None:
    evidence = verdict.judge(findings(made_of(anon=70, shmem=29), grew(anon=70, shmem=29))).evidence
    (other,) = [item for item in evidence if item.kind == "other_cause"]
    assert dict(other.numbers) == {
        "cause": "shmem",
        "weight": 0.291,
        "reason": "fills_limit",
        "held_bytes": 29 * MIB,
        "usage_bytes": LIMIT,
        "grown_bytes": 29 * MIB,
        "all_grown_bytes": 99 * MIB,
    }
    assert other.source == ("samples", "charge")
    assert "doubt_close_cause" not in kinds_of(evidence)


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({}, "sh (pid 41) asked for more memory and was killed: the cgroup /a was at its limit"),
        (
            {"victims": [victim(7, "b")], "victim_tgids": frozenset({7})},
            "sh (pid 41) asked for more memory, and b (pid 7) was killed for it: ",
        ),
        # The task that asked was a thread of the killed process.
        (
            {
                "victims": [victim(7, "b")],
                "trigger": replace(trigger(GFP_KERNEL), tgid=7),
                "victim_tgids": frozenset({7}),
            },
            "b (pid 7) asked for more memory and was killed: ",
        ),
        (
            {"victims": [victim(7, "b"), victim(41, "sh")]},
            "sh (pid 41) asked for more memory, and 2 processes were killed for it: ",
        ),
        ({"victims": []}, "sh (pid 41) asked for more memory: the cgroup /a"),
        ({"constraint": "global"}, "sh (pid 41) asked for memory and was killed: the whole machine had none"),
        (
            {"constraint": "cpuset"},
            "sh (pid 41) asked for memory and was killed: the memory nodes that its cpuset allows had none",
        ),
        (
            {"constraint": "unknown"},
            "sh (pid 41) asked for memory that was not available and was killed; it is not known whose",
        ),
    ],
)
def test_summary_begins_with_the_victim(changes: dict[str, Any], beginning: str) -> None:
    found = findings(made_of(anon=97), grew(anon=97), **changes)
    assert verdict.judge(found).summary.startswith(beginning)


def test_summary_names_every_kind_that_fills_a_good_part() -> None:
    mixed = findings(made_of(anon=42, shmem=39, page_tables=18), grew(anon=42, shmem=39, kernel=18))
    assert "42 MiB of it anonymous memory beside 39 MiB of shared memory; " in verdict.judge(mixed).summary
    plain = findings(made_of(anon=79, shmem=19), grew(anon=79, shmem=19))
    assert "79 MiB of it anonymous memory; " in verdict.judge(plain).summary


def test_kernel_memory_without_counters_is_named_so() -> None:
    found = findings(made_of(anon=9), grew(anon=2, kernel=80))
    judged = verdict.judge(found)
    assert "91 MiB of that whole pages without a counter of their own" in judged.summary
    assert any("Pipes and Unix sockets" in line for line in advise(found, judged.cause))
    # The kernel log of cgroup v1 has none of these counters.
    uncounted = replace(found, composition=replace(found.composition, slab_reclaimable=None))
    assert "of that memory of unknown kinds" in verdict.judge(uncounted).summary


@given(st.dictionaries(st.sampled_from(COMPOSITION_PARTS), st.integers(-(1 << 20), 1 << 40) | st.none()))
def test_judge_any_composition_gives_a_verdict(parts: dict[str, int | None]) -> None:
    composition = Composition(**dict.fromkeys(COMPOSITION_PARTS) | parts, total=LIMIT)
    judged = verdict.judge(findings(composition, Circumstances()))
    assert judged.summary
    assert all(0 < one.weight <= 1 for one in judged.suspects)
