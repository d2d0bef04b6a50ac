"""Each check passes on the experiment as it should be, and fails on the one thing that it is there for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.results.conclusions import Sizing, Verdict
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.memory import Composition, Cushion
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.reclaim_attempts import Reclaim, ReclaimAttempt
from tracer.analysis.results.tasks import Candidate, Trigger, Victim
from tracer.lab import checks
from tracer.lab.checks import Evidence
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine

MIB = 1 << 20
PAGE = 4096
LIMIT = 100 * MIB
EVICTED = 113 * MIB
BEGIN = pd.Timestamp("2025-11-24 23:40:00", tz="UTC")
KILL = BEGIN + pd.Timedelta(seconds=2)


VICTIM = Victim(8, "python3", "/memcg-tracer-1-lab", 61 * MIB, 0, 0, 0, 0, 0, False)


def report() -> OomReport:
    parts = dict.fromkeys(("file_dirty", "writeback", "shmem", "sock", "percpu", "vmalloc"), 0)
    composition = Composition(
        anon=98 * MIB,
        file_clean=MIB // 2,
        unevictable=None,
        slab_reclaimable=MIB // 4,
        slab_unreclaimable=MIB // 4,
        kernel_stack=MIB // 4,
        page_tables=MIB // 2,
        other=MIB // 4,
        total=LIMIT,
        **parts,
    )
    return OomReport(
        kill_id=1,
        time=KILL,
        ktime_ns=1,
        constraint="memcg",
        limit_owner=LimitOwner("/memcg-tracer-1-lab", None, None, LIMIT, LIMIT, False),
        trigger=Trigger(7, "python3", "/memcg-tracer-1-lab", None, None, None, None),
        victims=(VICTIM,),
        candidates=(),
        composition=composition,
        working_set_bytes=None,
        reclaim=Reclaim(0, 0, 0, 0.0, ()),
        cushion=Cushion(97 * MIB, MIB // 2, EVICTED, 96 * MIB, KILL - pd.Timedelta("20ms"), 0),
        allocators=(),
        verdict=Verdict("anon_growth", "high", "x", (), ()),
        advice=(),
        sizing=Sizing(None),
        quality=Quality(0, "missing", {}),
    )


def timeline() -> pd.DataFrame:
    """One second of reading, one of growing, then the cgroup after the kill."""
    seconds = np.arange(0, 3, 0.02)
    cache = np.where(
        seconds < 1, np.minimum(117 * MIB * seconds, 98 * MIB), 98 * MIB - 97 * MIB * (seconds - 1)
    )
    usage = np.where(seconds < 0.84, cache + 2 * MIB, LIMIT)
    alive = seconds <= 2
    frame = {"usage_bytes": np.where(alive, usage, 0), "cache_bytes": np.where(alive, cache, 0)}
    times = BEGIN + pd.to_timedelta(np.rint(seconds * 1000), unit="ms")
    return pd.DataFrame(frame, index=times).round().astype("Int64")


def pagecache(**damons: int) -> pd.DataFrame:
    """Evictions by DAMON, by reclaim for the limit, and DAMON's of another cgroup."""
    pages = [damons.get("pages", 0), 30, 7]
    columns = {"cgroup_id": [5, 5, 6], "op": "delete", "tgid": [77, 8, 77], "nr_pages": pages}
    causes = ["reclaim_kswapd", "reclaim_memcg", "reclaim_kswapd"]
    return pd.DataFrame(columns | {"cause": causes}, index=pd.DatetimeIndex([BEGIN] * 3, name="time"))


def processes() -> Processes:
    seen = pd.to_datetime([BEGIN, BEGIN])
    columns = {"tgid": [77, 8], "comm": ["kdamond.0", "python3"], "start_ns": [1, 2], "first_seen": seen}
    columns |= {"cmdline": [None, None], "cgroup_id": [6, 5]}
    return Processes(pd.DataFrame(columns | {"exited": pd.Series([pd.NaT, pd.NaT], dtype=seen.dtype)}))


def trace(**changes: Any) -> Any:
    samples = pd.DataFrame(
        {"cgroup_id": [5, 5, 6], "kill_id": [None, 1, 1], "pgsteal": [3, EVICTED // PAGE, 9]}
    )
    parts = {
        "meta": {"page_size": PAGE, "cpus": 2, "filters": {"cgroups": ["/memcg-tracer-1-lab"]}},
        "samples": samples.astype("Int64"),
        "cgroups": pd.DataFrame({"cgroup_id": [5, 6], "path": ["/memcg-tracer-1-lab", "/"]}),
        "pagecache": pagecache(),
        "processes": processes(),
        "explain": lambda: [report()],
        "timeline": lambda cgroup, every: timeline(),
    }
    return SimpleNamespace(**parts | changes)


def evidence(changed: OomReport | None = None, **changes: Any) -> Evidence:
    return Evidence(trace(**changes), [changed or report()], LIMIT, "anon_growth")


@pytest.mark.parametrize("check", EXPERIMENTS["page-cache"].checks)
def test_the_experiment_as_it_should_be_passes(check: Any) -> None:
    found = check(evidence())
    assert found.passed, found
    assert found.detail


@pytest.mark.parametrize(("damons", "passed"), [(4, True), (3, False)])
def test_what_damon_took_is_not_in_pgsteal(damons: int, passed: bool) -> None:
    found = checks.evictions_equal_pgsteal(
        evidence(cushion(evicted_bytes=EVICTED + 4 * PAGE), pagecache=pagecache(pages=damons))
    )
    assert found.passed is passed
    assert f"DAMON took {damons * PAGE} bytes" in found.detail


def cushion(**changes: Any) -> OomReport:
    return replace(report(), cushion=replace(report().cushion, **changes))


def owner(**changes: Any) -> OomReport:
    return replace(report(), limit_owner=replace(report().limit_owner, **changes))


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        (checks.killed_at_the_limit, replace(report(), constraint="global")),
        (checks.killed_at_the_limit, owner(usage_bytes=LIMIT - 129 * PAGE)),
        (checks.killed_at_the_limit, owner(limit_bytes=2 * LIMIT, usage_bytes=2 * LIMIT)),
        (checks.killed_at_the_limit, owner(usage_bytes=None)),
        (checks.cause_is_named, replace(report(), verdict=replace(report().verdict, cause="unknown"))),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, anon=90 * MIB, other=8 * MIB)),
        ),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, total=None)),
        ),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=EVICTED - PAGE)),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=None)),
        (checks.cache_gives_way, cushion(absorbed_bytes=10 * MIB)),
        (checks.cache_gives_way, cushion(evicted_bytes=50 * MIB)),
        (checks.cache_gives_way, cushion(absorbed_bytes=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=KILL + pd.Timedelta("1ms"))),
        (checks.cache_is_used_up, cushion(cache_end_bytes=30 * MIB)),
        (checks.little_was_evicted, report()),
    ],
)
def test_each_check_fails_on_what_it_is_there_for(check: Any, changed: OomReport) -> None:
    found = check(evidence(changed))
    assert not found.passed, found


def killed(trigger: str = "small", victim: str = "big", **changes: Any) -> OomReport:
    asked = replace(report().trigger, cgroup=f"/memcg-tracer-1-lab/{trigger}")
    died = replace(VICTIM, cgroup=f"/memcg-tracer-1-lab/{victim}")
    owner = replace(report().limit_owner, **{"is_ancestor": True} | changes)
    return replace(report(), trigger=asked, victims=(died,), limit_owner=owner)


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (killed(), True),
        (killed(trigger="big"), False),
        (killed(victim="small"), False),
        (killed(is_ancestor=False), False),
        (killed(cgroup=None), False),
        (replace(killed(), victims=killed().victims * 2), False),
    ],
)
def test_three_cgroups(changed: OomReport, passed: bool) -> None:
    assert checks.three_cgroups("small", "big")(evidence(changed)).passed is passed


def together(*sizes_bytes: int | None, **changes: Any) -> OomReport:
    victims = [replace(VICTIM, pid=7 + n, anon_rss_bytes=size) for n, size in enumerate(sizes_bytes)]
    return replace(report(), victims=tuple(replace(one, **{"group_kill": True} | changes) for one in victims))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (together(60 * MIB, 21 * MIB, 9 * MIB), True),
        (together(60 * MIB, 9 * MIB, 21 * MIB), True),
        (together(60 * MIB, 21 * MIB), False),
        (together(60 * MIB, 21 * MIB, 9 * MIB, 9 * MIB), False),
        (together(60 * MIB, 6 * MIB, 9 * MIB), False),
        (together(60 * MIB, 21 * MIB, None), False),
        (together(60 * MIB, 41 * MIB, 9 * MIB), False),
        (together(60 * MIB, 21 * MIB, 9 * MIB, group_kill=False), False),
        (report(), False),
    ],
)
def test_killed_together(changed: OomReport, passed: bool) -> None:
    """Who asked has the pid 7, and may be of any size."""
    assert checks.killed_together((7 * MIB, 19 * MIB))(evidence(changed)).passed is passed


def made_of(**changes: Any) -> OomReport:
    return replace(report(), composition=replace(report().composition, **changes))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (made_of(file_dirty=20 * MIB, writeback=61 * MIB), True),
        (made_of(file_dirty=20 * MIB, writeback=59 * MIB), False),
        (made_of(file_dirty=None, writeback=81 * MIB), True),
        (made_of(file_dirty=None, writeback=None), False),
    ],
)
def test_full_of(changed: OomReport, passed: bool) -> None:
    found = checks.full_of("file_dirty", "writeback")(evidence(changed))
    assert found.passed is passed
    assert found.name == "the limit is full of file_dirty and writeback"


def shared(shmem: int | None, *mapped: int | None) -> OomReport:
    victims = tuple(replace(VICTIM, shmem_rss_bytes=one) for one in mapped)
    return replace(made_of(shmem=shmem), victims=victims)


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (shared(92 * MIB, 55 * MIB), True),
        (shared(92 * MIB, 30 * MIB, 25 * MIB), True),
        (shared(92 * MIB, 92 * MIB), False),
        (shared(92 * MIB, 40 * MIB), False),
        (shared(None, 55 * MIB), False),
    ],
)
def test_shmem_of_no_process(changed: OomReport, passed: bool) -> None:
    assert checks.shmem_of_no_process(37 * MIB)(evidence(changed)).passed is passed


@pytest.mark.parametrize(
    ("victims", "passed"),
    [
        ((replace(VICTIM, anon_rss_bytes=7 * MIB, file_rss_bytes=6 * MIB),), True),
        ((replace(VICTIM, anon_rss_bytes=7 * MIB, shmem_rss_bytes=40 * MIB),), False),
        ((VICTIM,), False),
        ((), False),
    ],
)
def test_little_was_mapped(victims: tuple[Victim, ...], passed: bool) -> None:
    assert checks.little_was_mapped(evidence(replace(report(), victims=victims))).passed is passed


def attempt(scanned: int, freed: int = 0, dirty: int = 0, writeback: int = 0) -> ReclaimAttempt:
    anon, pages = 1, scanned + 1
    lists = (anon, scanned, 0, freed)
    return ReclaimAttempt("", 0.1, "memcg", None, 7, None, pages, freed, 0, *lists, dirty, writeback, 1, 1)


@pytest.mark.parametrize(
    ("attempts", "passed"),
    [
        ([attempt(900, dirty=900)], True),
        ([attempt(900, writeback=900), attempt(900, dirty=880)], True),
        ([attempt(900, dirty=900), attempt(900)], False),
        ([attempt(900, dirty=855, freed=45)], True),
        ([attempt(900, dirty=854, freed=46)], False),
        ([attempt(0)], True),
        ([attempt(0, freed=1)], False),
        ([], False),
    ],
)
def test_reclaim_met_unwritten_pages(attempts: list[ReclaimAttempt], passed: bool) -> None:
    reclaim = replace(report().reclaim, transcript=tuple(attempts))
    assert checks.reclaim_met_unwritten_pages(evidence(replace(report(), reclaim=reclaim))).passed is passed


@pytest.mark.parametrize(
    ("clean", "mapped", "passed"),
    [(4096, 47 * MIB, True), (41 * MIB, 47 * MIB, False), (4096, 6 * MIB, False), (None, 47 * MIB, False)],
)
def test_locked_file(clean: int | None, mapped: int, passed: bool) -> None:
    victims = (replace(VICTIM, file_rss_bytes=mapped),)
    changed = replace(made_of(file_clean=clean), victims=victims)
    assert checks.locked_file(41 * MIB)(evidence(changed)).passed is passed


CROWD = ((17 * MIB, 500), (2 * MIB, 600), (60 * MIB, 0))


@pytest.mark.parametrize(
    ("crowd", "victims", "passed"),
    [
        (CROWD, [(25 * MIB, 500)], True),
        (CROWD, [(25 * MIB, 500), (10 * MIB, 600)], True),
        (CROWD, [(25 * MIB, 500), (68 * MIB, 0)], False),
        (CROWD, [(10 * MIB, 600)], False),
        (CROWD, [(68 * MIB, 500)], False),
        (CROWD, [(16 * MIB, 500)], False),
        (CROWD, [(25 * MIB, 500)] * 4, False),
        (CROWD, [], False),
        (CROWD[::-1], [(68 * MIB, 0)], False),  # it would not be the worst
        (((17 * MIB, 500), (3 * MIB, 0)), [(25 * MIB, 500)], False),  # the one that asks may be worse
    ],
)
def test_worst_is_killed(
    crowd: tuple[tuple[int, int], ...], victims: list[tuple[int, int]], passed: bool
) -> None:
    killed = [replace(VICTIM, anon_rss_bytes=anon, oom_score_adj=adj) for anon, adj in victims]
    found = [replace(report(), victims=(one,)) for one in killed]
    assert checks.worst_is_killed(crowd)(Evidence(trace(), found, LIMIT, "anon_growth")).passed is passed


def weighed(*candidates: tuple[int, bool]) -> OomReport:
    found = [Candidate(n, "python3", 9 - n, adj, 1, chosen) for n, (adj, chosen) in enumerate(candidates)]
    return replace(report(), candidates=tuple(found))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (weighed((500, True), (0, False), (600, False), (0, False)), True),
        (weighed((600, False), (500, True), (0, False), (0, False)), False),
        (weighed((500, True), (0, False), (600, False)), False),
        (weighed((500, True), (0, False), (600, False), (0, False), (0, False)), False),
        (weighed((500, False), (0, False), (600, False), (0, False)), False),
        (weighed(), False),
    ],
)
def test_all_are_weighed(changed: OomReport, passed: bool) -> None:
    assert checks.all_are_weighed(CROWD)(evidence(changed)).passed is passed


@pytest.mark.parametrize(("kmsg", "passed"), [("rate_limited", True), ("missing", True), ("matched", False)])
def test_candidates_that_are_not_known_are_said_to_be(kmsg: Any, passed: bool) -> None:
    silent = replace(weighed(), quality=Quality(0, kmsg, {}))
    said = replace(weighed(), quality=Quality(0, kmsg, {}, {"candidates": "the log has no table"}))
    assert checks.all_are_weighed(CROWD)(evidence(silent)).passed is False
    assert checks.all_are_weighed(CROWD)(evidence(said)).passed is passed


@pytest.mark.parametrize(
    ("check", "passed"),
    [(checks.only_kill, [False, True, False]), (checks.first_kill, [False, True, True])],
)
def test_how_many_kills_there_can_be(check: Any, passed: list[bool]) -> None:
    assert [check([report()] * kills).passed for kills in range(3)] == passed


def test_no_sample_at_the_kill_is_not_an_equality_of_unknowns() -> None:
    samples = pd.DataFrame({"cgroup_id": [5], "kill_id": [1], "pgsteal": [None]}).astype("Int64")
    assert not checks.evictions_equal_pgsteal(evidence(cushion(evicted_bytes=None), samples=samples)).passed


def test_a_cache_that_never_filled_the_cgroup() -> None:
    low = timeline()
    low["cache_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda **_: low)).passed
    low["usage_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda **_: low)).passed


def test_a_cache_of_which_nothing_is_known() -> None:
    unknown = timeline()
    unknown["cache_bytes"] = pd.array([pd.NA] * len(unknown), dtype="Int64")
    for check in (checks.cache_fills_to_the_limit, checks.cache_gives_way):
        found = check(evidence(timeline=lambda **_: unknown))
        assert not found.passed
        assert "not known" in found.detail


def test_usage_that_left_the_limit_between_the_acts() -> None:
    dip = timeline()
    dip.loc[BEGIN + pd.Timedelta("1.5s"), "usage_bytes"] = 60 * MIB
    assert not checks.cache_gives_way(evidence(timeline=lambda **_: dip)).passed


@pytest.mark.parametrize("kills", [0, 2])
def test_without_the_one_kill_there_is_nothing_else_to_check(kills: int) -> None:
    found = examine(EXPERIMENTS["anon"], trace(explain=lambda: [report()] * kills))
    assert [check.passed for check in found] == [False]
    assert f"{kills} in the trace" in found[0].detail


def test_kills_elsewhere_are_not_its_own() -> None:
    elsewhere = replace(report(), victims=(replace(VICTIM, cgroup="/memcg-tracer-1-labour"),))
    below = replace(report(), victims=(replace(VICTIM, cgroup="/memcg-tracer-1-lab/small"),))
    unknown = replace(report(), victims=(replace(VICTIM, cgroup=None),))
    for reports, passed in (([elsewhere, below, unknown], True), ([elsewhere, unknown], False)):
        found = examine(EXPERIMENTS["anon"], trace(explain=lambda reports=reports: reports))
        assert found[0].passed is passed


def test_all_checks_of_an_experiment_are_made() -> None:
    found = examine(EXPERIMENTS["page-cache"], trace())
    assert len(found) == 1 + len(EXPERIMENTS["page-cache"].checks)
    assert all(check.passed for check in found)
