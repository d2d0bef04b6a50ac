"""A kill that comes while the victim of the kill before still frees its memory."""

from __future__ import annotations

from typing import Any, Final

import pytest
from support.evidence import kinds_of, numbers_of
from synthetic.memcg_kill import LIMIT, record_kill
from synthetic.oom_log import Dump

from tracer.analysis.explain import logged_kills
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

MIB: Final = 1 << 20


def killed_twice(trace: Any, age_s: float, *, usage: int, anon: int) -> OomReport:
    """Record a kill of `big` (pid 40) at 2 s and one of pid 50 `age_s` later; return the latter's report."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", LIMIT, tgid=40, usage_bytes=LIMIT, limit_bytes=LIMIT)
    record_kill(trace, 2, pid=40, tgid=40, comm="big")
    for kill_id, seconds, total, held in ((1, 2, LIMIT, LIMIT), (2, 2 + age_s, usage, anon)):
        sizes = dict.fromkeys(("file_bytes", "shmem_bytes", "kernel_bytes", "unevictable_bytes"), 0)
        sizes |= dict.fromkeys(("file_dirty_bytes", "file_writeback_bytes", "slab_reclaimable_bytes"), 0)
        sizes |= dict.fromkeys(("slab_unreclaimable_bytes", "kernel_stack_bytes", "page_tables_bytes"), 0)
        sizes |= dict.fromkeys(("sock_bytes", "percpu_bytes", "vmalloc_bytes", "swapcached_bytes"), 0)
        sizes |= {"anon_bytes": held, "usage_bytes": total, "limit_bytes": LIMIT}
        trace.add("samples", seconds, cgroup_id=1, source="oom", kill_id=kill_id, **sizes)
    record_kill(trace, 2 + age_s, kill_id=2, usage_bytes=usage)
    return explain(trace)[1]


@pytest.mark.parametrize(
    ("usage", "anon", "freeing"),
    [
        (LIMIT, 70 * MIB, "30 MiB"),  # unmapped, but still charged
        (91 * MIB, 91 * MIB, "9 MiB"),  # uncharged after the request had failed
    ],
)
def test_kill_while_a_victim_frees_its_memory_is_told_as_that(
    trace: Any, usage: int, anon: int, freeing: str
) -> None:
    report = killed_twice(trace, 0.05, usage=usage, anon=anon)
    assert f"big (pid 40), killed 50 ms before, was still freeing {freeing}; " in report.verdict.summary
    (advice,) = report.advice
    assert advice.startswith("Look at kill 1 first: once the memory of its victim had been free, ")
    assert report.sizing.min_limit_bytes is None
    assert report.quality.unknown["sizing.min_limit_bytes"].startswith(
        "the victim of kill 1 was still freeing"
    )
    (found,) = numbers_of(report.verdict.evidence, "still_freeing")
    assert (found["kill_id"], found["killed_pid"], found["before_ns"]) == (1, 40, 50_000_000)


@pytest.mark.parametrize(("age_s", "usage", "anon"), [(1.5, LIMIT, 70 * MIB), (0.05, LIMIT, 99 * MIB)])
def test_kill_long_after_or_with_nothing_to_free_stands_for_itself(
    trace: Any, age_s: float, usage: int, anon: int
) -> None:
    report = killed_twice(trace, age_s, usage=usage, anon=anon)
    assert "still freeing" not in report.verdict.summary
    assert "still_freeing" not in kinds_of(report.verdict.evidence)
    assert not any("Look at kill" in line for line in report.advice)


def test_room_at_the_kill_is_no_cache_that_could_have_been_reclaimed(trace: Any) -> None:
    report = killed_twice(trace, 1.5, usage=85 * MIB, anon=85 * MIB)
    assert report.quality.unknown["sizing.min_limit_bytes"] == (
        "usage was 15 MiB below the limit again at the kill: memory was freed after the request had failed"
    )


def test_log_alone_tells_the_kill_after_the_kill() -> None:
    """7 MiB are free again, and 1.9 MiB of usage in no counter."""
    first, second = Dump(40, comm="big"), Dump(50, comm="small", usage=93 * MIB)
    lines = [
        f"[   12.{at:06}] {line}" for at, dump in ((0, first), (50_000, second)) for line in dump.lines()
    ]
    _, report = logged_kills.explain(reports(split(["\n".join(lines).encode()])))
    assert "big (pid 40), killed 50 ms before, was still freeing 8.9 MiB; " in report.verdict.summary
    assert report.advice[0].startswith("Look at kill 1 first")
