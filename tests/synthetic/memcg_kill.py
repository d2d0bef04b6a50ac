"""A kill of pid 50 in a memory cgroup, recorded in a synthetic trace."""

from __future__ import annotations

from typing import Any, Final

from tracer.analysis.explain.postmortem import explain
from tracer.analysis.results.kill import OomReport

LIMIT: Final = 100 << 20


def record_kill(trace: Any, seconds: float, **row: Any) -> None:
    """Add a row of `oom`: pid 50 is killed for the limit of cgroup 1, with `row` changed."""
    fields = {
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
    trace.add("oom", seconds, **fields | row)


def only_report(trace: Any) -> OomReport:
    """Return the report of the only kill in the trace."""
    (report,) = explain(trace)
    return report
