"""Factors beside the cause of a kill."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.evidence import kinds_of, numbers_of
from synthetic.findings import GFP_NOFS, LIMIT, MIB, SECOND, findings, grew, made_of, trigger, victim

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Circumstances, Holder, Swap
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.explain.words.advice import advise
from tracer.analysis.results.kill import Candidate, LimitOwner
from tracer.analysis.results.memory import Cushion


def weighed(pid: int, held: int, adj: int = 0, *, chosen: bool = False) -> Candidate:
    return Candidate(pid, "sh", held, adj, held * 4096, chosen, held, 0)


@pytest.mark.parametrize(
    ("killed_adj", "larger_adj", "is_found"), [(500, 0, True), (0, -900, True), (0, 0, False)]
)
def test_larger_process_spared_by_oom_score_adj_is_found(
    killed_adj: int, larger_adj: int, is_found: bool
) -> None:
    candidates = (weighed(41, 10, killed_adj, chosen=True), weighed(42, 20, larger_adj))
    found = findings(made_of(anon=97), grew(anon=97), candidates=candidates)
    expected = {
        **{"killed_comm": "sh", "killed_pid": 41, "killed_oom_score_adj": killed_adj},
        **{"larger_comm": "sh", "larger_pid": 42, "larger_oom_score_adj": larger_adj},
        **{"killed_held_bytes": 40 << 10, "larger_held_bytes": 80 << 10},
    }
    items = numbers_of(contributing(found, CAUSES["anon_growth"]), "larger_process_lived")
    assert items == ([expected] if is_found else [])


def test_larger_process_when_a_group_was_killed_is_not_found() -> None:
    candidates = (weighed(41, 10, 500, chosen=True), weighed(42, 20))
    several = [victim(41, "sh"), victim(43, "sh")]
    found = findings(made_of(anon=97), grew(anon=97), candidates=candidates, victims=several)
    assert "larger_process_lived" not in kinds_of(contributing(found, CAUSES["anon_growth"]))


def test_many_small_processes_are_counted_together() -> None:
    many = tuple(weighed(100 + number, 500, chosen=not number) for number in range(50))
    found = findings(made_of(anon=97), grew(anon=97), candidates=many)
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "many_processes") == [
        {"processes": 50, "largest_bytes": 500 * 4096}
    ]
    assert any("what starts so many processes (50)" in line for line in advise(found, "anon_growth"))
    few = replace(found, candidates=many[:9])
    assert "many_processes" not in kinds_of(contributing(few, CAUSES["anon_growth"]))


def alike(comm: str, *mib: int) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(200 + at, comm, None, 0, size * MIB, False, anon_rss_bytes=size * MIB)
        for at, size in enumerate(mib)
    )


def test_processes_of_one_command_are_told_together() -> None:
    jobs = alike("cc1plus", 25, 21, 17, 3)  # the last one has only begun
    found = findings(made_of(anon=90), grew(anon=90), candidates=(*jobs, *alike("make", 2)))
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "same_command") == [
        {"comm": "cc1plus", "processes": 3, "held_bytes": 63 * MIB, "largest_bytes": 25 * MIB}
    ]
    (line,) = (line for line in advise(found, "anon_growth") if "cc1plus" in line)
    assert line == (
        "Run fewer cc1plus processes at a time, or leave room for all: 3 of them held 63 MiB together, at "
        "most 25 MiB each."
    )


@pytest.mark.parametrize(
    ("composition", "candidates"),
    [
        ({"anon": 90}, alike("cc1plus", 85)),
        ({"anon": 90}, (*alike("cc1plus", 45), *alike("ld", 40))),
        ({"anon": 90}, alike("cc1plus", 55, 20)),  # one holds most
        ({"anon": 90}, alike("cc1plus", 25, 20)),  # less than half of usage
        ({"anon": 60}, alike("python3", 50, 48)),  # shared since a fork
    ],
)
def test_processes_of_one_command_that_are_not_the_reason_are_not_told(
    composition: dict[str, int], candidates: tuple[Candidate, ...]
) -> None:
    found = findings(made_of(**composition), grew(**composition), candidates=candidates)
    assert "same_command" not in kinds_of(contributing(found, CAUSES["anon_growth"]))


@pytest.mark.parametrize(
    ("cmdline", "outside"), [("java -Xmx64m A", 26), ("java -Xmx89m A", None), ("java A", None)]
)
def test_memory_outside_of_the_heap_is_found(cmdline: str, outside: int | None) -> None:
    killed = replace(victim(41, "java"), anon_rss_bytes=90 * MIB, cmdline=cmdline)
    found = findings(made_of(anon=92), grew(anon=92), victims=[killed])
    numbers = numbers_of(contributing(found, CAUSES["anon_growth"]), "outside_heap")
    assert [one["outside_bytes"] for one in numbers] == ([] if outside is None else [outside * MIB])


@pytest.mark.parametrize("threads", [None, 31, 32])
def test_many_threads_of_the_killed_process_are_found(threads: int | None) -> None:
    killed = replace(victim(41, "work"), anon_rss_bytes=35 * MIB, threads=threads)
    found = findings(made_of(anon=92), grew(anon=92), victims=[killed])
    assert ("many_threads" in kinds_of(contributing(found, CAUSES["anon_growth"]))) == (threads == 32)


def test_every_factor_of_a_mixed_kill_is_found() -> None:
    around = Circumstances(
        grown_bytes={"anon": 60 * MIB, "shmem": 0, "kernel": 0, "sock": 0},
        rise_ns=SECOND,
        swap=Swap(0, 0, False),
        protected_bytes=3 * MIB,
        holders=(Holder("big", 61 * MIB, False), Holder("small", 37 * MIB, True), Holder(None, MIB, False)),
        dying_bytes=7 * MIB,
        dirty_wait_ms=1250.0,
    )
    found = findings(
        made_of(anon=68, page_tables=6, shmem=8, file_dirty=9, file_clean=9),
        around,
        owner=LimitOwner("/a", None, None, LIMIT, LIMIT, True),
        trigger=trigger(GFP_NOFS),
        cushion=Cushion(0, 0, 5 * MIB, 0, refaulted_bytes=2 * MIB),
    )
    items = contributing(found, CAUSES["anon_growth"])
    assert [(item.kind, dict(item.numbers)) for item in items] == [
        (
            "shared_limit",
            {
                "holders": (
                    {"cgroup": "big", "held_bytes": 61 * MIB, "is_triggers": False},
                    {"cgroup": "small", "held_bytes": 37 * MIB, "is_triggers": True},
                    {"held_bytes": MIB, "is_triggers": False},
                )
            },
        ),
        ("also_in_usage", {"part": "shmem", "held_bytes": 8 * MIB, "usage_bytes": LIMIT}),
        ("also_in_usage", {"part": "page_tables", "held_bytes": 6 * MIB, "usage_bytes": LIMIT}),
        ("also_in_usage", {"part": "unwritten", "held_bytes": 9 * MIB, "usage_bytes": LIMIT}),
        ("burst", {"grown_bytes": 60 * MIB, "rise_ns": SECOND, "calm_ns": 9 * SECOND}),
        ("refaulted_cache", {"refaulted_bytes": 2 * MIB, "evicted_bytes": 5 * MIB}),
        ("no_swap", {}),
        ("protected_memory", {"protected_bytes": 3 * MIB}),
        ("writer_waits", {"waited_ms": 1250.0}),
        ("restricted_request", {"gfp": GFP_NOFS}),
        ("dying_cgroups", {"held_bytes": 7 * MIB}),
        ("clean_cache_left", {"held_bytes": 6 * MIB}),
    ]


def test_factors_that_the_cause_states_are_left_out() -> None:
    around = replace(grew(anon=40), protected_bytes=55 * MIB, swap=Swap(MIB, None, False))
    found = findings(made_of(anon=10, shmem=20, file_clean=57), around, trigger=trigger(GFP_NOFS))
    kinds = {
        cause: kinds_of(contributing(found, CAUSES[cause]))
        for cause in ("shmem", "protected_cache", "gfp_constrained", "swap_exhausted")
    }
    assert "also_in_usage" not in kinds["shmem"] and "unmapped_shmem" in kinds["shmem"]
    assert not {"protected_memory", "clean_cache_left"} & set(kinds["protected_cache"])
    assert not {"restricted_request", "clean_cache_left"} & set(kinds["gfp_constrained"])
    assert "swap_in_use" not in kinds["swap_exhausted"]
    for cause, others in (("shmem", "protected_memory"), ("protected_cache", "restricted_request")):
        assert others in kinds[cause]


def test_growth_over_an_hour_is_slow() -> None:
    around = replace(grew(anon=90), rise_ns=3600 * SECOND)
    found = findings(made_of(anon=97), around, window=Window(0, 0, 4500 * SECOND))
    (slow,) = numbers_of(contributing(found, CAUSES["anon_growth"]), "slow_growth")
    assert slow == {
        "grown_bytes": 90 * MIB,
        "rise_ns": 3600 * SECOND,
        "bytes_per_minute": 72 * MIB // 60,
    }


def test_kill_of_the_whole_machine_has_no_factors() -> None:
    found = findings(made_of(anon=97), grew(anon=97), constraint="global")
    assert contributing(found, CAUSES["global_pressure"]) == ()


def test_memory_in_transit_is_not_kernel_memory() -> None:
    """The count of all kernel memory bounds the part of the rest that the kernel holds."""
    made = made_of(anon=55, slab_unreclaimable=2, zswap=3)
    counted = findings(made, replace(grew(anon=60), kernel_bytes=9 * MIB))
    assert composition.kernel_bytes(counted) == 6 * MIB, "zswap holds pages of processes"
    assert composition.largest_kernel_part(counted) == ("other", 4 * MIB)
    (found,) = [
        item for item in contributing(counted, CAUSES["anon_growth"]) if item.kind == "memory_in_transit"
    ]
    assert dict(found.numbers) == {"held_bytes": 36 * MIB}
    uncounted = findings(made, grew(anon=60))
    assert composition.kernel_bytes(uncounted) == 42 * MIB
    assert "memory_in_transit" not in {item.kind for item in contributing(uncounted, CAUSES["anon_growth"])}
