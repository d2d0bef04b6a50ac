"""The kernel log's account of the machine, in the report of a kill that a trace has."""

from __future__ import annotations

from typing import Any

import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import only_report, record_kill
from synthetic.oom_log import log

from tracer.analysis.results.kill import OomReport

PAGE = 4096
MEM_INFO = (
    "Mem-Info:",
    "active_anon:300 inactive_anon:11 isolated_anon:0",
    " slab_reclaimable:20 slab_unreclaimable:60",
    " free:31 free_pcp:0 free_cma:0",
    "Node 0 Normal free:124kB min:200kB low:250kB high:300kB present:4400kB managed:4000kB",
    "1100 pages RAM",
    "100 pages reserved",
)


@pytest.fixture
def logged(trace: Any) -> Any:
    """Return a trace with a kill of the machine, whose kernel log was read."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.meta |= {"kernel_log": "read", "cpus": 1}
    owner = dict.fromkeys(("limit_owner_cgroup_id", "usage_bytes", "limit_bytes"))
    record_kill(trace, 1, constraint="global", is_told=True, **owner)
    return trace


def report(trace: Any, order: int, *machine: str) -> OomReport:
    """Return the report on the kill, with these lines on the machine in the log."""
    log(
        trace,
        1,
        f"sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order={order}, oom_score_adj=0",
        "CPU: 1 UID: 0 PID: 50 Comm: sh Not tainted 6.18.44 #1 PREEMPT(none) ",
        *machine,
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,"
        "task=sh,pid=50,uid=0",
        "Out of memory: Killed process 50 (sh) total-vm:9000kB, anon-rss:1200kB, file-rss:0kB, shmem-rss:0kB",
    )
    found = only_report(trace)
    assert found.quality.kmsg == "matched"
    return found


def test_global_kill_has_the_machine_and_its_shortage_from_the_log(logged: Any) -> None:
    verdict = report(logged, 0, *MEM_INFO).verdict
    (memory,) = numbers_of(verdict.evidence, "machine_memory")
    assert memory == {
        **{"usable_bytes": 1000 * PAGE, "anon_bytes": 311 * PAGE, "file_bytes": 0, "shmem_bytes": 0},
        **{"slab_bytes": 80 * PAGE, "unevictable_bytes": 0, "free_bytes": 31 * PAGE},
    }
    (zone,) = numbers_of(verdict.evidence, "short_zone")
    assert zone == {"zone": "Normal", "node": 0, "free_bytes": 124 << 10, "min_bytes": 200 << 10}
    assert (verdict.cause, verdict.confidence) == ("global_pressure", "high")
    assert "2.3 MiB of its 3.9 MiB (57.8 %) was memory that no counter names" in verdict.summary


def test_kill_by_hand_is_no_shortage(logged: Any) -> None:
    verdict = report(logged, -1, *MEM_INFO).verdict
    assert verdict.cause == "unknown"
    assert "by hand (SysRq-F)" in verdict.summary
