"""The report on synthetic kills with known numbers: verdict, document, and unknown values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.evidence import kinds_of, numbers_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

MIB = 1 << 20


def test_verdict_of_the_page_cache_experiment_is_anon_growth(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
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


def test_to_dict_has_the_fields_of_the_json_document(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
    document = report.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert list(document) == [
        *("kill_id", "time", "ktime_ns", "constraint", "limit_owner", "trigger", "victims", "candidates"),
        *("composition", "working_set_bytes", "reclaim", "cushion", "allocators", "verdict", "advice"),
        *("sizing", "quality", "memory_stat_bytes", "badness_total_pages", "what_if", "kernel_log"),
        *(
            "further_allocators",
            "shared_files",
            "mappings",
            "runtime",
            "cached",
            "code",
            "code_sampled_share",
            "code_memory",
        ),
    ]
    assert document["quality"]["kmsg"] == "missing"
    assert document["quality"]["probes"] == {"oom": "tp_btf/mark_victim"}


def test_to_dict_with_null_fields_has_their_reasons(page_cache_experiment: Any) -> None:
    document = only_report(page_cache_experiment).to_dict()
    unknown = document["quality"].pop("unknown")

    def nulls(value: Any, name: str) -> list[str]:
        if isinstance(value, dict):
            return [found for key, item in value.items() for found in nulls(item, f"{name}.{key}".strip("."))]
        return [name] if value is None else []

    # The container is in no pod, the report is not from a log, the title says no more than the name, and
    # nothing was cached before the trace.
    known_to_be_none = {"limit_owner.pod", "limit_owner.namespace", "kernel_log", "trigger.cmdline"}
    known_to_be_none |= {"limit_owner.lowered", "cached"}
    assert set(nulls(document, "")) - known_to_be_none <= set(unknown)
    assert not known_to_be_none & set(unknown)


def test_verdict_with_lost_records_has_less_confidence(page_cache_experiment: Any) -> None:
    page_cache_experiment.add("loss", 2.1, begin=page_cache_experiment.ns(2.0), stream="pagecache", lost=12)
    page_cache_experiment.add("loss", 5, begin=page_cache_experiment.ns(4), stream="pagecache", lost=1000)
    report = only_report(page_cache_experiment)
    assert report.quality.lost_records == 12
    assert report.verdict.confidence == "medium"
    assert numbers_of(report.verdict.evidence, "doubt_lost_records") == [{"lost_records": 12}]


def test_composition_without_a_sample_at_the_kill_is_the_ledgers(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    trace.forget("samples")
    report = only_report(trace)
    made_of = report.composition
    assert (made_of.anon, made_of.file_clean, made_of.file_dirty) == (99 * MIB, MIB, None)
    assert made_of.total == LIMIT
    assert report.cushion.cache_end_bytes == MIB
    assert (report.cushion.refaulted_bytes, report.cushion.kernel_refaulted_bytes) == (0, None)
    assert report.verdict.confidence == "medium"
    assert "steal_count" not in kinds_of(report.verdict.evidence)
    sources = {item.source for item in report.verdict.evidence if item.kind == "part_of_usage"}
    assert sources == {("charge", "samples", "oom")}  # the usage is of the decision


@pytest.mark.parametrize("has_sample", [True, False])
def test_category_that_was_not_recorded_is_unknown_in_the_composition(
    page_cache_experiment: Any, has_sample: bool
) -> None:
    """Neither a 0 of the kernel nor a ledger without rows shows that there are no page tables."""
    trace = page_cache_experiment
    if not has_sample:
        trace.forget("samples")
    assert only_report(trace).composition.page_tables == 0
    trace.meta["unrecorded_categories"] = ["page_tables"]
    trace.recorded()
    report = only_report(trace)
    assert report.composition.page_tables is None
    assert report.composition.kernel_stack == 0
    assert report.quality.unknown["composition.page_tables"] == (
        "the recorder found no counter of it in this kernel; it is inside `other`"
    )


def test_verdict_with_much_cache_left_is_unknown(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(0.5, 1, "file", 30 * MIB, usage_bytes=30 * MIB)
    trace.charged(1, 1, "anon", 70 * MIB, usage_bytes=LIMIT)
    record_kill(trace, 2)
    report = only_report(trace)
    assert (report.verdict.cause, report.verdict.confidence, report.advice) == ("unknown", "low", ())
    assert report.cushion.exhausted_at is None
    assert "cushion.exhausted_at" not in report.quality.unknown


def test_growth_handed_over_after_the_kill_counts_by_the_sample(trace: Any) -> None:
    """Each CPU keeps up to 256 KiB for 10 ms, which can be all of a small limit; the sample has it."""
    limit = 300 << 10
    trace.add("cgroups", cgroup_id=1, path="/small", created=trace.ns(0))
    at_kill = {"anon_bytes": 240 << 10, "file_bytes": 0, "shmem_bytes": 0, "kernel_bytes": 60 << 10}
    counts = at_kill | {"usage_bytes": limit, "limit_bytes": limit}
    trace.add("samples", 0.1, cgroup_id=1, source="oom", kill_id=1, **counts)
    record_kill(trace, 0.1, limit_bytes=limit, usage_bytes=limit)
    trace.charged(0.102, 1, "anon", 236 << 10, tgid=50, usage_bytes=limit)
    verdict = only_report(trace).verdict
    assert (verdict.cause, verdict.suspects[0].weight) == ("anon_growth", 0.8)
    numbers = verdict.suspects[0].evidence.numbers
    assert (numbers["grown_bytes"], numbers["all_grown_bytes"]) == (240 << 10, 300 << 10)


def test_cgroup_without_a_start_sample_has_an_unknown_composition(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.charged(1, 1, "anon", MIB, usage_bytes=LIMIT)
    record_kill(trace, 2)
    report = only_report(trace)
    assert report.composition.anon is None
    assert report.composition.other == LIMIT
    assert report.cushion.cache_start_bytes is None
    assert report.cushion.cache_end_bytes is None
    assert report.cushion.absorbed_bytes == 0
    assert report.verdict.cause == "unknown"


def test_global_oom_has_no_limit_owner(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("reclaim", 1, kind="direct", pid=50, tgid=50, order=2, scanned=9, duration_ns=10**6)
    trace.add("reclaim", 1, kind="memcg", cgroup_id=1, scanned=1)
    record_kill(trace, 2, constraint="global", limit_owner_cgroup_id=None, usage_bytes=None, limit_bytes=None)
    report = only_report(trace)
    assert (report.constraint, report.trigger.order, report.reclaim.attempts) == ("global", 2, 1)
    assert report.composition.total is None
    assert report.cushion.evicted_bytes is None
    assert (report.verdict.cause, report.limit_owner.is_ancestor) == ("global_pressure", None)
    assert {"composition", "cushion", "limit_owner"} <= set(report.quality.unknown)
    assert "whole machine" in report.verdict.summary


def test_candidates_are_ranked_best_first(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for pid, badness in ((1, 5), (2, None), (3, 9)):
        trace.add("oom_candidates", kill_id=1, pid=pid, badness=badness, chosen=pid == 3)
    trace.add("oom_candidates", kill_id=2, pid=4, badness=100)
    record_kill(trace, 1)
    candidates = only_report(trace).candidates
    assert [(one.pid, one.badness, one.chosen) for one in candidates] == [
        (3, 9, True),
        (1, 5, False),
        (2, None, False),
    ]
