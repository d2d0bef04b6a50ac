"""The post-mortem of synthetic kills with known numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from support.evidence import kinds_of, numbers_of

from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.explain.wording import trigger_name
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import FurtherAllocators

MIB = 1 << 20
LIMIT = 100 * MIB


def _only(trace: Any) -> OomReport:
    (report,) = explain(trace)
    return report


def test_cushion_to_the_byte(page_cache_experiment: Any) -> None:
    report = _only(page_cache_experiment)
    cushion = report.cushion
    assert cushion.cache_start_bytes == LIMIT
    assert cushion.cache_end_bytes == MIB
    assert cushion.evicted_bytes == 116 * MIB
    assert cushion.absorbed_bytes == 99 * MIB
    assert cushion.refaulted_bytes == 5 * 4096
    # The 99th allocation of the second act took the cache below 2 MiB.
    assert cushion.exhausted_at == pd.Timestamp("2025-11-24T16:00:02.980000+00:00")
    assert report.time == pd.Timestamp("2025-11-24T16:00:03.600000+00:00")
    document = report.to_dict()
    assert document["time"] == "2025-11-24T16:00:03.600000+00:00"
    assert document["cushion"]["exhausted_at"] == "2025-11-24T16:00:02.980000+00:00"


def test_reclaim_and_allocators(page_cache_experiment: Any) -> None:
    report = _only(page_cache_experiment)
    reclaim = report.reclaim
    assert reclaim.attempts == 17 + 99 + 3
    assert reclaim.reclaimed_pages == 116 * 256
    assert reclaim.scanned_pages == 116 * 300 + 300
    assert reclaim.stall_ms == pytest.approx(116 + 6)
    assert len(reclaim.transcript) == 12
    assert [attempt.reclaimed_pages for attempt in reclaim.transcript] == [256] * 9 + [0] * 3
    assert reclaim.transcript[-1].cgroup == "/docker/4f2a"
    assert reclaim.transcript[-1].comm == "python3"
    assert reclaim.transcript[-1].kept_file is None
    (waiter,) = reclaim.waiters
    assert (waiter.tgid, waiter.comm) == (41, "python3")
    assert waiter.kinds_ms == {"reclaim": pytest.approx(116 + 6)}
    (allocator,) = report.allocators
    # From when usage was last below 50 MiB (the 49th of 117 reads): file 1 MiB more in the end than the
    # evictions in the same process, net, below zero at no category.
    assert (allocator.tgid, allocator.comm) == (41, "python3")
    assert allocator.charged_bytes == 99 * MIB


def test_who_and_what(page_cache_experiment: Any) -> None:
    report = _only(page_cache_experiment)
    owner, trigger, (victim,) = report.limit_owner, report.trigger, report.victims
    assert (owner.cgroup, owner.container, owner.limit_bytes, owner.usage_bytes, owner.is_ancestor) == (
        "/docker/4f2a",
        "web",
        LIMIT,
        LIMIT,
        False,
    )
    assert trigger.stack == ("out_of_memory", "try_charge_memcg", "handle_mm_fault")
    assert (trigger.user_stack, trigger.order, trigger.gfp) == (None, None, 0xCC0)
    assert (victim.pid, victim.anon_rss_bytes, victim.swap_bytes, victim.group_kill) == (
        41,
        98 * MIB,
        None,
        False,
    )
    assert report.composition.anon == 99 * MIB
    assert report.composition.file_clean == MIB
    assert report.composition.other == 0
    assert report.working_set_bytes == LIMIT - MIB // 2
    assert report.candidates == ()
    assert {"candidates", "trigger.order", "trigger.user_stack", "sizing.min_limit_bytes"} <= set(
        report.quality.unknown
    )


def test_verdict(page_cache_experiment: Any) -> None:
    report = _only(page_cache_experiment)
    verdict = report.verdict
    assert (verdict.cause, verdict.confidence) == ("anon_growth", "high")
    assert verdict.summary == (
        "python3 (pid 41) asked for more memory and was killed: container web was at its limit of 100 MiB, "
        "99 MiB of it anonymous memory; the page cache had already given back 116 MiB and was used up 620 ms "
        "before."
    )
    (compared,) = numbers_of(verdict.evidence, "steal_count")
    assert compared == {"evicted_pages": 29_696, "swapped_pages": 0, "pgsteal_pages": 29_696}
    assert "fruitless_attempt" in kinds_of(verdict.evidence)
    assert any("python3 (pid 41)" in line for line in report.advice)


def test_json_document(page_cache_experiment: Any) -> None:
    report = _only(page_cache_experiment)
    document = report.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert list(document) == [
        *("kill_id", "time", "ktime_ns", "constraint", "limit_owner", "trigger", "victims", "candidates"),
        *("composition", "working_set_bytes", "reclaim", "cushion", "allocators", "verdict", "advice"),
        *("sizing", "quality", "memory_stat_bytes", "badness_total_pages", "what_if", "kernel_log"),
        "further_allocators",
    ]
    assert document["quality"]["kmsg"] == "missing"
    assert document["quality"]["probes"] == {"oom": "tp_btf/mark_victim"}


def test_null_fields_say_why(page_cache_experiment: Any) -> None:
    document = _only(page_cache_experiment).to_dict()
    unknown = document["quality"].pop("unknown")

    def nulls(value: Any, name: str) -> list[str]:
        if isinstance(value, dict):
            return [found for key, item in value.items() for found in nulls(item, f"{name}.{key}".strip("."))]
        return [name] if value is None else []

    # The container is no pod's, the report is no log's, and the title says no more than the name.
    known_to_be_none = {"limit_owner.pod", "kernel_log", "trigger.cmdline"}
    assert set(nulls(document, "")) - known_to_be_none <= set(unknown)
    assert not known_to_be_none & set(unknown)


def test_loss_lowers_confidence(page_cache_experiment: Any) -> None:
    page_cache_experiment.add("loss", 2.1, begin=page_cache_experiment.ns(2.0), stream="pagecache", lost=12)
    page_cache_experiment.add("loss", 5, begin=page_cache_experiment.ns(4), stream="pagecache", lost=1000)
    report = _only(page_cache_experiment)
    assert report.quality.lost_records == 12
    assert report.verdict.confidence == "medium"
    assert numbers_of(report.verdict.evidence, "doubt_lost_records") == [{"lost_records": 12}]


def test_no_sample_at_the_kill_falls_back_to_the_ledger(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    trace.forget("samples")
    report = _only(trace)
    made_of = report.composition
    assert (made_of.anon, made_of.file_clean, made_of.file_dirty) == (99 * MIB, MIB, None)
    assert made_of.total == LIMIT
    assert report.cushion.cache_end_bytes == MIB
    assert report.cushion.refaulted_bytes is None
    assert report.verdict.confidence == "medium"
    assert "steal_count" not in kinds_of(report.verdict.evidence)
    sources = {item.source for item in report.verdict.evidence if item.kind == "part_of_usage"}
    assert sources == {("charge", "samples")}


def _kill(trace: Any, seconds: float, **row: Any) -> None:
    trace.add(
        "oom",
        seconds,
        **{
            "kill_id": 1,
            "constraint": "memcg",
            "limit_owner_cgroup_id": 1,
            "usage_bytes": LIMIT,
            "limit_bytes": LIMIT,
            "trigger_pid": 50,
            "trigger_comm": "sh",
            "trigger_cgroup_id": 1,
            "pid": 50,
            "tgid": 50,
            "comm": "sh",
            "cgroup_id": 1,
        }
        | row,
    )


def test_group_kill_is_one_decision(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    _kill(trace, 1.0, pid=50)
    _kill(trace, 1.0001, pid=51, tgid=51, comm="b")
    _kill(trace, 2.0, kill_id=2)
    first, second = explain(trace)
    assert [(victim.pid, victim.group_kill) for victim in first.victims] == [(50, True), (51, True)]
    assert [victim.group_kill for victim in second.victims] == [False]


def test_victims_of_a_group_kill_are_each_in_their_own_cgroup(trace: Any) -> None:
    for number, path in ((1, "/p"), (2, "/p/small"), (3, "/p/big")):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    _kill(trace, 1.0, trigger_cgroup_id=3, cgroup_id=3)
    _kill(trace, 1.0001, trigger_cgroup_id=3, pid=51, tgid=51, cgroup_id=2)
    document = _only(trace).to_dict()
    assert document["limit_owner"]["cgroup"] == "/p"
    assert document["limit_owner"]["is_ancestor"] is True
    assert document["trigger"]["cgroup"] == "/p/big"
    victims = [(victim["pid"], victim["cgroup"], victim["group_kill"]) for victim in document["victims"]]
    assert victims == [(50, "/p/big", True), (51, "/p/small", True)]


def test_limit_of_an_ancestor(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    for child, path in ((2, "/pod/a"), (3, "/pod/b"), (4, "/podcast")):
        trace.add("cgroups", cgroup_id=child, path=path, created=trace.ns(0))
    for second in range(1, 11):
        trace.charged(second, 2, "anon", 3 * MIB, tgid=50)
        trace.charged(second, 3, "anon", 7 * MIB, tgid=60)
        trace.charged(second, 4, "anon", 9 * MIB, tgid=70)
        trace.add("samples", second, cgroup_id=1, source="periodic", usage_bytes=second * 10 * MIB)
    trace.add("tasks", tgid=60, comm="hog", first_seen=trace.ns(0))
    _kill(trace, 10.5, trigger_cgroup_id=2, cgroup_id=2)
    report = _only(trace)
    assert report.limit_owner.is_ancestor is True
    assert report.limit_owner.cgroup == "/pod"
    assert report.trigger.cgroup == "/pod/a"
    assert report.composition.anon == LIMIT
    # From when usage was last below 50 MiB, at 4 s: that row of 4 s included.
    assert [(one.tgid, one.comm, one.charged_bytes) for one in report.allocators] == [
        (60, "hog", 7 * 7 * MIB),
        (50, None, 7 * 3 * MIB),
    ]
    assert report.verdict.cause == "anon_growth"
    assert "(above the cgroup that asked)" in report.verdict.summary
    assert report.cushion.exhausted_at is None
    assert "cushion.exhausted_at" not in report.quality.unknown
    assert any("Do not look only at the killed process, sh (pid 50)" in line for line in report.advice)


def test_much_cache_left_is_no_anon_growth(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(0.5, 1, "file", 30 * MIB, usage_bytes=30 * MIB)
    trace.charged(1, 1, "anon", 70 * MIB, usage_bytes=LIMIT)
    _kill(trace, 2)
    report = _only(trace)
    assert (report.verdict.cause, report.verdict.confidence, report.advice) == ("unknown", "low", ())
    assert report.cushion.exhausted_at is None
    assert "cushion.exhausted_at" not in report.quality.unknown


def test_what_was_handed_over_after_the_kill_had_grown_before(trace: Any) -> None:
    """Of a small limit that can be all: each CPU keeps up to 256 KiB for 10 ms, the sample has it at once."""
    limit = 300 << 10
    trace.add("cgroups", cgroup_id=1, path="/small", created=trace.ns(0))
    at_kill = {"anon_bytes": 240 << 10, "file_bytes": 0, "shmem_bytes": 0, "kernel_bytes": 60 << 10}
    counts = at_kill | {"usage_bytes": limit, "limit_bytes": limit}
    trace.add("samples", 0.1, cgroup_id=1, source="oom", kill_id=1, **counts)
    _kill(trace, 0.1, limit_bytes=limit, usage_bytes=limit)
    trace.charged(0.102, 1, "anon", 236 << 10, tgid=50, usage_bytes=limit)
    verdict = _only(trace).verdict
    assert (verdict.cause, verdict.suspects[0].weight) == ("anon_growth", 0.8)
    numbers = verdict.suspects[0].evidence.numbers
    assert (numbers["grown_bytes"], numbers["all_grown_bytes"]) == (240 << 10, 300 << 10)


def test_allocators_beyond_those_that_are_named_are_counted(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/crowd", created=trace.ns(0))
    for number in range(13):
        trace.charged(
            0.1 + number / 100, 1, "anon", (20 - number) * 4096, tgid=100 + number, usage_bytes=LIMIT
        )
    trace.charged(0.3, 1, "anon", -4096, tgid=200, usage_bytes=LIMIT)
    _kill(trace, 1)
    report = _only(trace)
    assert [one.tgid for one in report.allocators] == list(range(100, 110))
    assert report.further_allocators == FurtherAllocators(3, (10 + 9 + 8) * 4096)


def test_a_cgroup_that_is_no_container_is_known_to_be_none(trace: Any) -> None:
    trace.charged(1, 1, "anon", LIMIT, usage_bytes=LIMIT)
    _kill(trace, 2)
    unknown = _only(trace).quality.unknown
    assert unknown["limit_owner.container"] == unknown["limit_owner.cgroup"]
    trace.add("cgroups", cgroup_id=1, path="/a")
    report = _only(trace)
    assert (report.limit_owner.cgroup, report.limit_owner.container) == ("/a", None)
    assert not {"limit_owner.container", "limit_owner.pod"} & set(report.quality.unknown)


def test_old_cgroup_without_start_sample(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.charged(1, 1, "anon", MIB, usage_bytes=LIMIT)
    _kill(trace, 2)
    report = _only(trace)
    assert report.composition.anon is None
    assert report.composition.other == LIMIT
    assert report.cushion.cache_start_bytes is None
    assert report.cushion.cache_end_bytes is None
    assert report.cushion.absorbed_bytes == 0
    assert report.verdict.cause == "unknown"


def test_the_second_kill_starts_after_the_first(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "file", LIMIT, usage_bytes=LIMIT)
    trace.add("pagecache", 1.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=100)
    _kill(trace, 2)
    trace.charged(3, 1, "anon", 5, usage_bytes=LIMIT)
    trace.add("pagecache", 3.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=11)
    trace.add("pagecache", 3.5, cgroup_id=1, op="delete", cause="truncate", nr_pages=1000)
    trace.add("pagecache", 3.5, cgroup_id=9, op="delete", cause="reclaim_memcg", nr_pages=1000)
    _kill(trace, 4, kill_id=2)
    assert [report.cushion.evicted_bytes for report in explain(trace)] == [100 * 4096, 11 * 4096]


def test_what_damon_evicts_is_evicted_but_not_compared_with_what_reclaim_stole(
    page_cache_experiment: Any,
) -> None:
    trace = page_cache_experiment
    trace.add("tasks", tgid=77, start_ns=1, comm="kdamond.0", first_seen=trace.ns(2.95))
    trace.add("tasks", tgid=78, start_ns=1, comm="kswapd0", first_seen=trace.ns(2.95))
    for tgid, pages in ((77, 9), (78, 4)):
        trace.add(
            "pagecache", 2.9, cgroup_id=7, tgid=tgid, op="delete", cause="reclaim_kswapd", nr_pages=pages
        )
    report = _only(trace)
    assert report.cushion.evicted_bytes == 116 * MIB + 13 * 4096
    (compared,) = numbers_of(report.verdict.evidence, "steal_count")
    assert (compared["evicted_pages"], compared["pgsteal_pages"]) == (116 * 256 + 4, 116 * 256)


@pytest.mark.parametrize(
    ("least", "soon", "is_one_story"), [(95, 0.2, True), (80, 0.2, False), (95, 2, False)]
)
def test_kills_before_the_memory_of_the_first_is_free_are_one_story(
    trace: Any, least: int, soon: float, is_one_story: bool
) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 90 * MIB, usage_bytes=LIMIT)
    _kill(trace, 2)
    trace.charged(2 + soon / 2, 1, "anon", -5 * MIB, usage_bytes=least * MIB)
    _kill(trace, 2 + soon, kill_id=2)
    _, second = explain(trace)
    grown = [one["grown_bytes"] for one in numbers_of(second.verdict.evidence, "growth")]
    assert (grown == [85 * MIB]) is is_one_story, grown


def test_a_lull_ends_the_window(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for seconds, usage, evicted in ((1, 100, 7), (2, 89, 0), (3, 95, 1), (4, 100, 20), (5, 91, 30)):
        trace.charged(seconds, 1, "anon", 0, usage_bytes=usage * MIB)
        trace.add("pagecache", seconds, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=evicted)
    _kill(trace, 6)
    assert _only(trace).cushion.evicted_bytes == 50 * 4096


def test_global_oom_has_no_owner(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("reclaim", 1, kind="direct", pid=50, tgid=50, order=2, scanned=9, duration_ns=10**6)
    trace.add("reclaim", 1, kind="memcg", cgroup_id=1, scanned=1)
    _kill(trace, 2, constraint="global", limit_owner_cgroup_id=None, usage_bytes=None, limit_bytes=None)
    report = _only(trace)
    assert (report.constraint, report.trigger.order, report.reclaim.attempts) == ("global", 2, 1)
    assert report.composition.total is None
    assert report.cushion.evicted_bytes is None
    assert (report.verdict.cause, report.limit_owner.is_ancestor) == ("global_pressure", None)
    assert {"composition", "cushion", "limit_owner"} <= set(report.quality.unknown)
    assert "whole machine" in report.verdict.summary


def test_candidates_best_first(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for pid, badness in ((1, 5), (2, None), (3, 9)):
        trace.add("oom_candidates", kill_id=1, pid=pid, badness=badness, chosen=pid == 3)
    trace.add("oom_candidates", kill_id=2, pid=4, badness=100)
    _kill(trace, 1)
    candidates = _only(trace).candidates
    assert [(one.pid, one.badness, one.chosen) for one in candidates] == [
        (3, 9, True),
        (1, 5, False),
        (2, None, False),
    ]


def test_what_held(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/near", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/free")
    trace.charged(1, 1, "anon", 40 * MIB, usage_bytes=40 * MIB, limit_bytes=LIMIT)
    trace.charged(2, 1, "file", 58 * MIB, usage_bytes=98 * MIB, limit_bytes=LIMIT)
    trace.charged(3, 1, "anon", -10 * MIB, usage_bytes=88 * MIB, limit_bytes=LIMIT)
    trace.add("pagecache", 2.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=3)
    trace.add("reclaim", 2.5, kind="memcg", cgroup_id=1, reclaimed=3)
    trace.add("samples", 3, cgroup_id=1, source="end", max_events=12)
    trace.add("samples", 3, cgroup_id=2, source="end", usage_bytes=1, limit_bytes=0x7FFF_FFFF_FFFF_F000)
    assert explain(trace) == []
    near, free = held_cgroups(trace)
    assert (near.cgroup, near.limit_bytes, near.peak_usage_bytes, near.headroom_bytes) == (
        "/near",
        LIMIT,
        98 * MIB,
        2 * MIB,
    )
    assert near.peak_time == pd.Timestamp("2025-11-24T16:00:02.000000+00:00")
    assert (near.peak_anon_bytes, near.cache_at_peak_bytes) == (40 * MIB, 58 * MIB)
    assert (near.evicted_bytes, near.reclaim.reclaimed_pages, near.max_events) == (3 * 4096, 3, 12)
    assert (free.cgroup, free.headroom_bytes, free.peak_anon_bytes) == ("/free", None, None)
    assert free.quality.unknown["headroom_bytes"] == "no limit is set"
    assert json.loads(json.dumps(near.to_dict())) == near.to_dict()


def test_a_title_that_says_more_than_the_name_is_in_the_report(page_cache_experiment: Any) -> None:
    for row in page_cache_experiment.recorded()["tasks"]:
        row["cmdline"] = "work: growing"
    page_cache_experiment.add("oom_candidates", 3, kill_id=1, pid=42, tgid=41, badness=9, chosen=True)
    report = _only(page_cache_experiment)
    assert [one.cmdline for one in report.candidates] == ["work: growing"]
    assert report.trigger.cmdline == report.victims[0].cmdline == "work: growing"


def test_a_thread_is_named_beside_its_process(page_cache_experiment: Any) -> None:
    trigger = _only(page_cache_experiment).trigger
    assert (trigger.pid, trigger.tgid) == (42, 41)
    assert trigger_name(trigger) == f"{trigger.comm} (thread 42 of pid 41)"
    assert trigger_name(replace(trigger, tgid=42)) == f"{trigger.comm} (pid 42)"
