"""Kills for a limit that was lowered below usage: what is said of them, from a trace and from a log."""

from __future__ import annotations

from typing import Any, Final

import pytest
from support.evidence import kinds_of, numbers_of
from synthetic.memcg_kill import only_report
from synthetic.oom_log import Dump, log
from synthetic.resized import IN_USE, MIB, NEW, OLD, WRITE, resized

from tracer.analysis.explain import logged_kills
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import Lowered, OomReport
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split
from tracer.render.words import kill_facts
from tracer.schema import UNLIMITED_BYTES

CHARGE: Final = (
    "out_of_memory+0x1fd/0x5b0",
    "mem_cgroup_out_of_memory+0x134/0x150",
    "try_charge_memcg+0x1/0x6",
)


def resized_report(trace: Any, stack: tuple[str, ...] = WRITE, *, old: int = OLD, **row: Any) -> OomReport:
    resized(trace, stack, old=old, **row)
    return only_report(trace)


def test_limit_lowered_by_the_trigger_is_told_as_that(trace: Any) -> None:
    report = resized_report(trace)
    assert report.verdict.summary == (
        "kubelet (pid 7) lowered the limit of the cgroup /a from 64 MiB to 24 MiB while 41 MiB was in use, "
        "40 MiB of it anonymous memory, and sh (pid 50) was killed for it; no page cache was left to reclaim."
    )
    assert report.limit_owner.lowered == Lowered(OLD, IN_USE, by_trigger=True, before_ns=40_000_000)
    assert (
        kill_facts.cause(report)
        == "Cause: the limit was lowered below usage (anon_growth). Confidence: high."
    )
    said = "".join([*report.advice, *map(evidence.sentence, report.verdict.evidence), report.verdict.summary])
    assert "asked for more" not in said
    assert "-4352" not in said
    assert "4352 pages above the limit" in said
    assert "back to 64 MiB, which was enough, or above the 41 MiB" in report.advice[0]
    assert not any("growth" in line or "need less memory" in line for line in report.advice)
    facts = dict(kill_facts.asked(report))
    assert facts["lowered by"] == "kubelet (pid 7)"
    assert "requested by" not in facts


def test_limit_before_bounds_the_range_of_limits(trace: Any) -> None:
    report = resized_report(trace)
    assert report.sizing.min_limit_bytes == (IN_USE, OLD)
    assert report.sizing.pace == ""


@pytest.mark.parametrize(
    ("old", "why_not", "sentence"),
    [
        (
            UNLIMITED_BYTES,
            "no limit was set before",
            "kubelet (pid 7) set the limit of the cgroup /a, which had",
        ),
        (
            NEW,
            "the limit before is not known",
            "kubelet (pid 7) lowered the limit of the cgroup /a to 24 MiB while",
        ),
    ],
)
def test_no_limit_before_gives_no_range(trace: Any, old: int, why_not: str, sentence: str) -> None:
    """If the trace has no reading of another limit, the limit before is not known."""
    report = resized_report(trace, old=old)
    assert report.sizing.min_limit_bytes is None
    assert report.quality.unknown["sizing.min_limit_bytes"] == why_not
    assert report.verdict.summary.startswith(sentence)
    document = report.to_dict()["limit_owner"]["lowered"]
    assert document["limit_bytes"] is None
    assert document["is_limited"] is (False if old == UNLIMITED_BYTES else None)
    assert ("limit_owner.lowered.limit_bytes" in report.quality.unknown) == (old == NEW)
    assert "back to" not in report.advice[0]


def test_time_at_the_limit_begins_when_it_was_lowered(trace: Any) -> None:
    """Usage was above the new limit long before; nothing was reclaimed then."""
    resized(trace)
    evict = {"cgroup_id": 1, "tgid": 50, "inode_id": 1, "index": 0, "nr_pages": 256}
    trace.add("pagecache", 3, op="add", cause="read", **evict)
    trace.add("pagecache", 4, op="delete", cause="reclaim_memcg", **evict)
    report = only_report(trace)
    assert report.cushion.evicted_bytes == 0
    assert report.reclaim.attempts == 16
    assert numbers_of(report.verdict.evidence, "evicted_cache")[0]["span_ns"] == 40_000_000


def test_charge_after_a_limit_was_lowered_has_both_told(trace: Any) -> None:
    """A write with O_NONBLOCK leaves reclaim, and so the kill, to the next charge."""
    sh: dict[str, Any] = {"trigger_pid": 50, "trigger_tgid": 50, "trigger_comm": "sh", "trigger_cgroup_id": 1}
    report = resized_report(trace, CHARGE, **sh)
    assert report.verdict.summary.startswith(
        "sh (pid 50) asked for more memory and was killed: the cgroup /a was at its limit of 24 MiB (lowered "
        "from 64 MiB 40 ms before, while 41 MiB was in use), 40 MiB of it anonymous memory; "
    )
    assert report.sizing.min_limit_bytes == (IN_USE, OLD)
    assert "requested by" in dict(kill_facts.asked(report))


def test_limit_lowered_above_usage_is_a_limit_like_any_other(trace: Any) -> None:
    trace.charged(8, 1, "anon", 0, tgid=50, usage_bytes=20 * MIB, limit_bytes=NEW)
    sh: dict[str, Any] = {"trigger_pid": 50, "trigger_tgid": 50, "trigger_comm": "sh", "trigger_cgroup_id": 1}
    resized(trace, CHARGE, **sh)
    for row in trace.recorded()["charge"]:
        row["usage_bytes"] = min(row["usage_bytes"], 20 * MIB)
    report = only_report(trace)
    assert report.limit_owner.lowered is None
    assert "lowered_limit" not in kinds_of(report.verdict.evidence)


def test_stack_that_the_trace_lacks_is_the_logs(trace: Any) -> None:
    resized(trace, kernel_stack_id=9, trigger_pid=50, pid=50)
    dump = Dump(50, comm="sh", oom_memcg="/a", task_memcg="/a", usage=IN_USE, limit=NEW, stack=WRITE)
    log(trace, 10, *dump.lines())
    report = only_report(trace)
    assert report.quality.kmsg == "matched"
    assert report.trigger.stack == WRITE
    assert "trigger.stack" in report.quality.kmsg_fields
    assert report.limit_owner.lowered is not None
    assert report.limit_owner.lowered.by_trigger


@pytest.mark.parametrize("stack_id", [9, 3])
@pytest.mark.parametrize(("cgroup", "is_writer"), [(2, True), (1, False)])
def test_trigger_without_a_stack_is_the_writer_if_it_is_in_another_cgroup(
    trace: Any, stack_id: int, cgroup: int, is_writer: bool
) -> None:
    """No name of the stack was found in time, and the kernel log was not read."""
    report = resized_report(
        trace, ("0xffffffff8123", "0xff"), kernel_stack_id=stack_id, trigger_cgroup_id=cgroup
    )
    assert report.limit_owner.lowered is not None
    assert report.limit_owner.lowered.by_trigger == is_writer


def test_log_alone_tells_the_lowered_limit_by_the_stack() -> None:
    dump = Dump(50, comm="sh", usage=IN_USE, limit=NEW, anon_rss=36 * MIB, stack=WRITE)
    text = "\n".join(dump.lines()).encode()
    (report,) = logged_kills.explain(reports(split([text])))
    assert report.verdict.summary.startswith(
        "sh (pid 50) lowered the limit of the cgroup /box to 24 MiB while 41 MiB was in use, 36 MiB of it "
        "anonymous memory, and was killed; "
    )
    assert "above the 41 MiB that was in use when it was lowered to 24 MiB." in report.advice[0]
    assert report.limit_owner.lowered == Lowered(None, IN_USE, by_trigger=True)
    assert "limit_owner.lowered.limit_bytes" in report.quality.unknown
