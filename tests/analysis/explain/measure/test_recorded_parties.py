"""The limit owner, the trigger and the victims of synthetic kills."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.words.sentence_parts import trigger_name

MIB = 1 << 20


def test_parties_of_the_page_cache_experiment_are_as_recorded(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
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


def test_explain_of_a_group_kill_is_one_report(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    record_kill(trace, 1.0, pid=50)
    record_kill(trace, 1.0001, pid=51, tgid=51, comm="b")
    record_kill(trace, 2.0, kill_id=2)
    first, second = explain(trace)
    assert [(victim.pid, victim.group_kill) for victim in first.victims] == [(50, True), (51, True)]
    assert [victim.group_kill for victim in second.victims] == [False]


def test_victims_of_a_group_kill_have_their_own_cgroups(trace: Any) -> None:
    for number, path in ((1, "/p"), (2, "/p/small"), (3, "/p/big")):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    record_kill(trace, 1.0, trigger_cgroup_id=3, cgroup_id=3)
    record_kill(trace, 1.0001, trigger_cgroup_id=3, pid=51, tgid=51, cgroup_id=2)
    document = only_report(trace).to_dict()
    assert document["limit_owner"]["cgroup"] == "/p"
    assert document["limit_owner"]["is_ancestor"] is True
    assert document["trigger"]["cgroup"] == "/p/big"
    victims = [(victim["pid"], victim["cgroup"], victim["group_kill"]) for victim in document["victims"]]
    assert victims == [(50, "/p/big", True), (51, "/p/small", True)]


def test_limit_owner_that_is_no_container_has_no_reason_for_it(trace: Any) -> None:
    trace.charged(1, 1, "anon", LIMIT, usage_bytes=LIMIT)
    record_kill(trace, 2)
    unknown = only_report(trace).quality.unknown
    assert unknown["limit_owner.container"] == unknown["limit_owner.cgroup"]
    trace.add("cgroups", cgroup_id=1, path="/a")
    report = only_report(trace)
    assert (report.limit_owner.cgroup, report.limit_owner.container) == ("/a", None)
    assert not {"limit_owner.container", "limit_owner.pod"} & set(report.quality.unknown)


def test_title_that_says_more_than_the_name_is_in_the_report(page_cache_experiment: Any) -> None:
    for row in page_cache_experiment.recorded()["tasks"]:
        row["cmdline"] = "work: growing"
    page_cache_experiment.add("oom_candidates", 3, kill_id=1, pid=42, tgid=41, badness=9, chosen=True)
    report = only_report(page_cache_experiment)
    assert [one.cmdline for one in report.candidates] == ["work: growing"]
    assert report.trigger.cmdline == report.victims[0].cmdline == "work: growing"


def test_trigger_thread_is_named_beside_its_process(page_cache_experiment: Any) -> None:
    trigger = only_report(page_cache_experiment).trigger
    assert (trigger.pid, trigger.tgid) == (42, 41)
    assert trigger_name(trigger) == f"{trigger.comm} (thread 42 of pid 41)"
    assert trigger_name(replace(trigger, tgid=42)) == f"{trigger.comm} (pid 42)"
