from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from tracer.analysis.results.kill import Evidence, LimitOwner, OomReport
from tracer.analysis.results.memory import Cushion, MappedPart, ProcessMemory, Reclaim, SwapIo, Waiter
from tracer.analysis.results.quality import LOG_ALONE, KernelLogPlace
from tracer.analysis.results.survivor import Held
from tracer.analysis.views import reclaim
from tracer.categories import PART_BY_NAME, RECLAIM_COUNTS
from tracer.kernel.anatomy.mapping_kinds import KINDS
from tracer.render.terminal import console, explain_text, survivor_text
from tracer.render.words import kill_facts, reclaim_facts, survivor_facts

HOSTILE = "\x1b[31m[red]<script>\nx\udc80"
MIB = 1 << 20
TOOK_MS = {"median": 13.9, "longest": 496.7}


def shown(report: OomReport, *, columns: int = 100, verbose: bool = True) -> str:
    lines = explain_text.post_mortem(report, page_size=4096, verbose=verbose)
    return console.to_text(lines, columns=columns, colour=False)


@pytest.mark.parametrize("verbose", [False, True])
def test_page_cache_experiment_matches_the_golden_file(
    report: OomReport, verbose: bool, matches_golden: Callable[[str, str], None]
) -> None:
    matches_golden(f"explain{'-verbose' if verbose else ''}.txt", shown(report, verbose=verbose))


@pytest.fixture
def stuck(report: OomReport) -> OomReport:
    """Return a report in which reclaim freed little, since most was dirty, and tasks waited for that."""
    none = dict.fromkeys(RECLAIM_COUNTS, 0)
    attempts = tuple(
        replace(
            attempt,
            kept_file=none | {"nr_dirty": 3000 + number, "nr_unqueued_dirty": 2900, "nr_ref_keep": number},
            kept_anon=none | {"nr_unmap_fail": number},
        )
        for number, attempt in enumerate(report.reclaim.transcript)
    )
    waiters = (
        Waiter(123, "python3", 812.5, {"reclaim": 300.0, "writeback": 500.0, "dirty": 12.5}),
        Waiter(7, None, 3.0, {"dirty": 3.0}),
    )
    tried = replace(report.reclaim, transcript=attempts, waiters=waiters)
    writes, reads = SwapIo(1300, 79 << 20, TOOK_MS), SwapIo(40, 1 << 20, {})
    return replace(report, reclaim=replace(tried, swap_writes=writes, swap_reads=reads))


def test_waiters_and_kept_pages_match_the_golden_file(
    stuck: OomReport, matches_golden: Callable[[str, str], None]
) -> None:
    text = shown(stuck)
    begin, end = text.index("Reclaim: the kernel"), text.index("The request, the")
    matches_golden("explain-stuck.txt", text[begin:end])
    assert max(map(cell_len, shown(stuck, columns=70).splitlines())) <= 70


def test_swap_traffic_has_facts(report: OomReport) -> None:
    def swap_facts(writes: SwapIo | None, reads: SwapIo | None = None) -> list[tuple[str, str]]:
        return list(reclaim_facts.swapped(replace(report.reclaim, swap_writes=writes, swap_reads=reads)))

    assert swap_facts(None) == swap_facts(SwapIo(0, 0, {}), SwapIo(0, 0, {})) == []
    (fact,) = swap_facts(SwapIo(2, 8192, {}))
    assert fact == ("to swap", "8 KiB in 2 writes, with unknown latency")
    (fact,) = swap_facts(None, SwapIo(1, 4096, {"median": 2.0, "longest": 2.0}))
    assert fact == ("from swap", "4 KiB in 1 read, half of them within 2 ms, the slowest in 2 ms")


def test_fields_from_the_kernel_log_and_differences_are_shown(report: OomReport) -> None:
    log = replace(
        report.quality,
        kmsg="matched",
        kmsg_missing="it lacks tasks",
        kmsg_fields=("trigger.order", "composition"),
        disagreements=(
            f"the name of the trigger: {HOSTILE}, in the kernel log cat",
            "order: 0, in the kernel log 2",
        ),
    )
    trigger = replace(report.trigger, gfp=0xCC0, gfp_names="GFP_KERNEL|__GFP_ZERO")
    text = " ".join(shown(replace(report, quality=log, trigger=trigger)).split())
    assert "it lacks tasks; taken from it: the order of the request, the composition of usage" in text
    assert "differs the name of the trigger: \\x1b[31m[red]" in text
    assert "differs order: 0, in the kernel log 2" in text
    assert "GFP_KERNEL|__GFP_ZERO" in text


def test_kept_pages_add_up_over_the_attempts(stuck: OomReport) -> None:
    file, anon = reclaim_facts.kept(stuck.reclaim.transcript[-2:])
    assert file[1].endswith("6,021 dirty (5,800 of them not yet queued for writeback), 21 referenced")
    assert anon == ("kept anon", "pages of process memory that the last 2 attempts could not free: 21 mapped")
    one = replace(stuck.reclaim.transcript[0], kept_file=None)
    assert list(reclaim_facts.kept([one])) == []


def test_every_kind_of_wait_and_of_page_kept_has_words() -> None:
    assert set(reclaim_facts.KINDS_IN_WORDS) == set(reclaim.KINDS)
    assert set(reclaim_facts.KEPT_IN_WORDS) < set(RECLAIM_COUNTS)


def factor(number: int, comm: str = "sh") -> Evidence:
    killed: dict[str, Any] = {
        "killed_comm": comm,
        "killed_pid": number,
        "killed_oom_score_adj": 500,
        "killed_held_bytes": 1,
    }
    larger = {"larger_comm": comm, "larger_pid": 9, "larger_oom_score_adj": 0, "larger_held_bytes": 2}
    return Evidence("larger_process_lived", killed | larger, ("oom_candidates",))


@pytest.mark.parametrize("columns", [80, 100])
def test_first_screen_begins_with_the_answer_and_fits(report: OomReport, columns: int) -> None:
    verdict = replace(report.verdict, contributing=tuple(factor(number) for number in range(5)))
    many = replace(report, verdict=verdict, advice=tuple(f"advice {number} " * 20 for number in range(9)))
    for one in (report, many):
        lines = shown(one, verbose=False, columns=columns).splitlines()
        assert " ".join(lines).startswith(report.verdict.summary)
        assert len(lines) <= 30
    assert "more (-v)" in shown(many, verbose=False)
    (little,) = explain_text.post_mortem(many, page_size=4096, verbose=False, lines=5)
    assert "advice 0" in console.to_text([little], columns=columns, colour=False)


def test_first_screen_leaves_out_shares_below_one_percent(report: OomReport) -> None:
    first, everything = shown(report, verbose=False), shown(report)
    assert "clean page cache   1 MiB" in first and "reclaimable slab   1 MiB" in first
    for little in ("unreclaimable slab", "page tables", "kernel stacks"):
        assert little not in first and little in everything


def test_report_from_a_log_has_its_limits_once(report: OomReport) -> None:
    place = KernelLogPlace(1, 9, 5, None, None, (), 0)
    unknown = dict.fromkeys(("reclaim", "cushion.evicted_bytes", "allocators"), LOG_ALONE)
    log = replace(
        report,
        kernel_log=place,
        allocators=(),
        reclaim=Reclaim(None, None, None, None, ()),
        cushion=Cushion(cache_end_bytes=MIB),
        quality=replace(report.quality, kmsg="only", unknown=unknown | {"trigger.gfp": "the line is cut"}),
    )
    assert " ".join(shown(log).split()).count(LOG_ALONE) == 1
    first = shown(log, verbose=False)
    assert "not known     the gfp flags of the request\n" in first
    assert "a kernel log alone" in first and "Reclaim" not in first


def mapped(name: str) -> ProcessMemory:
    """Return the memory of a process of this name, all of whose mappings have it as well."""
    parts = tuple(MappedPart(kind, name, 1, 1 << 20, None, 1 << 20, 0) for kind in KINDS)
    return ProcessMemory(7, name, pd.Timestamp("2025-11-24T23:40:01+00:00"), len(parts) << 20, 0, parts)


@pytest.mark.parametrize("columns", [70, 80, 100, 140])
@pytest.mark.parametrize("verbose", [False, True])
def test_hostile_names_are_escaped_within_the_width(
    new_report: Callable[..., OomReport], columns: int, verbose: bool
) -> None:
    hostile = new_report(HOSTILE, "/" + HOSTILE + "z" * 300)
    hostile = replace(
        hostile,
        trigger=replace(hostile.trigger, stack=(HOSTILE,), user_stack=(HOSTILE,), cgroup=HOSTILE),
        limit_owner=replace(
            hostile.limit_owner, container=HOSTILE, pod=HOSTILE, namespace=HOSTILE, image=HOSTILE
        ),
        quality=replace(hostile.quality, probes={HOSTILE: HOSTILE}, unknown={HOSTILE: HOSTILE}),
        advice=(HOSTILE,),
        mappings=(mapped(HOSTILE + "z" * 300),),
        verdict=replace(hostile.verdict, evidence=(factor(1, HOSTILE),), contributing=(factor(2, HOSTILE),)),
    )
    text = shown(hostile, columns=columns, verbose=verbose)
    assert "\x1b" not in text
    assert r"\x1b[31m[red]<script>\nx\x80" in text
    assert max(map(cell_len, text.splitlines())) <= columns


def test_user_stack_that_left_the_code_says_so(report: OomReport) -> None:
    cut_off = replace(report.trigger, user_stack=("fill [work]",), user_stack_left_code=True)
    assert re.search(
        r"user stack +fill \[work\]\n +\(unwinding ended here", shown(replace(report, trigger=cut_off))
    )
    assert "unwinding ended" not in shown(report)


def test_image_and_namespace_are_shown_if_they_are_known(report: OomReport) -> None:
    owner = replace(report.limit_owner, container="app", pod="web-0", namespace="prod", image="redis:7")
    text = shown(replace(report, limit_owner=owner))
    assert re.search(r"^ *namespace +prod$", text, re.MULTILINE)
    assert re.search(r"^ *image +redis:7$", text, re.MULTILINE)
    assert not re.search(r"^ *(?:image|namespace) ", shown(report), re.MULTILINE)


def test_every_number_of_the_composition_is_there_and_adds_up(report: OomReport) -> None:
    assert sum(value for _, value in kill_facts.composition(report)) == report.composition.total
    text = shown(report)
    assert "not known: unevictable" in text
    assert "empty: dirty page cache" in text


def test_kill_with_unknown_fields_has_no_none(report: OomReport) -> None:
    nothing = replace(
        report,
        constraint="unknown",
        limit_owner=LimitOwner(None, None, None, None, None, None),
        trigger=replace(report.trigger, cgroup=None, gfp=None, order=None, stack=None),
        victims=tuple(replace(victim, anon_rss_bytes=None, cgroup=None) for victim in report.victims),
        candidates=(),
        composition=replace(report.composition, **dict.fromkeys([*PART_BY_NAME, "total"])),
        working_set_bytes=None,
        reclaim=Reclaim(0, 0, 0, 0.0, ()),
        cushion=Cushion(),
        allocators=(),
        advice=(),
    )
    text = shown(nothing)
    assert "RSS           not known" in text
    assert "None" not in text
    assert "nan" not in text


def test_group_kill_and_ancestor_limit_are_shown(report: OomReport) -> None:
    many = tuple(replace(report.victims[0], pid=pid, group_kill=True) for pid in range(1000, 1009))
    owner = replace(report.limit_owner, is_ancestor=True)
    text = shown(replace(report, victims=many, limit_owner=owner))
    assert "1008" in text
    assert "in a descendant of this cgroup" in " ".join(text.split())
    assert "killed processes had mapped" in " ".join(text.split())
    assert "9 processes by one decision: memory.oom.group is set" in " ".join(text.split())


def test_victims_in_other_cgroups_have_their_cgroups(report: OomReport) -> None:
    assert "killed in" not in shown(report)
    moved = tuple(replace(report.victims[0], pid=pid, cgroup=f"/p\x1b/{pid}") for pid in range(1000, 1009))
    text = " ".join(shown(replace(report, victims=moved)).split())
    assert r"killed in /p\x1b/1000, /p\x1b/1001" in text
    assert "/p\x1b" not in text
    assert "1008" in text
    assert "memory.oom.group" not in text


def test_cushion_that_was_never_used_up_says_so(report: OomReport) -> None:
    left = replace(report, cushion=replace(report.cushion, exhausted_at=None))
    assert "used up       at no time between reaching the limit and the kill" in shown(left)
    why = {"cushion.exhausted_at": "no start sample"}
    unknown = replace(left, quality=replace(report.quality, unknown=why))
    assert "not known: no start sample" in shown(unknown)


def test_survivors_match_the_golden_file(
    held: Held, new_held: Callable[..., Held], matches_golden: Callable[[str, str], None]
) -> None:
    cgroups = [held, *(new_held(f"/other-{number}", HOSTILE) for number in range(60))]
    for verbose, more in ((False, "54 more in -v and --json"), (True, "11 more cgroups were traced")):
        text = console.to_text(survivor_text.held(cgroups, verbose=verbose), columns=100, colour=False)
        assert "\x1b" not in text
        assert more in text
    few = console.to_text(survivor_text.held(cgroups[:3], verbose=True), columns=100, colour=False)
    matches_golden("held-verbose.txt", few)


def test_survivors_fit_one_screen(
    held: Held, new_held: Callable[..., Held], matches_golden: Callable[[str, str], None]
) -> None:
    cgroups = [
        *(new_held(f"/other-{number}", HOSTILE) for number in range(9)),
        replace(held, headroom_bytes=0),
    ]
    text = console.to_text(survivor_text.held(cgroups), columns=100, colour=False)
    matches_golden("held.txt", text)
    assert text.index("/memcg-tracer-78-anon") < text.index("/other-0")
    assert len(text.splitlines()) <= 30


def test_survivors_without_a_limit_or_a_cgroup_have_a_summary(held: Held) -> None:
    assert "none of the cgroups shown has a limit of its own" in survivor_facts.summary(
        [replace(held, headroom_bytes=None)]
    )
    assert "no cgroup of this trace has a limit" in survivor_facts.summary([])
    swapped = replace(held, peak_swap_bytes=9 << 20)
    assert "30 MiB of page cache was evicted to make room, and 9 MiB went to swap" in survivor_facts.summary(
        [swapped]
    )
    again = replace(held, refaulted_bytes=15 << 20)
    assert survivor_facts.summary([again]).endswith(
        "page cache was evicted to make room, 15 MiB had to be read again."
    )
    above = replace(held, reclaim=replace(held.reclaim, attempts=0, stall_ms=0.0), refaulted_bytes=31 << 20)
    text = dict(survivor_facts.held(above))
    assert "30 MiB of page cache, by reclaim for an ancestor cgroup" in text["evicted"]
    assert text["read again"] == "31 MiB of what was evicted"
    counted = dict(survivor_facts.held(replace(above, kernel_refaulted_bytes=40 << 20)))["read again"]
    assert "; the kernel's count is 40 MiB: it includes what was evicted before that time" in counted
    fewer = dict(survivor_facts.held(replace(above, kernel_refaulted_bytes=20 << 20)))["read again"]
    assert "; the kernel's count is 20 MiB: the kernel forgets old evictions" in fewer
    stuck = replace(held, stuck_since=pd.Timestamp("2025-11-24T23:40:03.000000+00:00"))
    assert "tasks are stuck" in survivor_facts.summary([stuck])
    assert "Unset it, raise the limit" in dict(survivor_facts.held(stuck))["stuck since"]
    assert "reached its limit of 100 MiB" in survivor_facts.summary([replace(held, headroom_bytes=0)])
