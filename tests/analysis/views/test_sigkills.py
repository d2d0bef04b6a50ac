"""SIGKILLs of a trace, with the cgroups and containers of target and sender."""

from __future__ import annotations

import json
from typing import Any

from tracer.analysis.views.sigkills import sigkills
from tracer.schema import UNLIMITED_BYTES


def killed(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/docker/1", created=trace.ns(0), container="shop")
    trace.add("cgroups", cgroup_id=8, path="/jobs", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=9, path="/system.slice", created=trace.ns(0))
    trace.add(
        *("sigkills", 1.5),
        **{"cgroup_id": 7, "tgid": 70, "comm": "web", "way": "pidfd", "since_sigterm_ns": 1_500_000_000},
        **{"sender_tgid": 90, "sender_comm": "runc", "sender_cgroup_id": 9},
        **{"parent1_tgid": 91, "parent1_comm": "containerd-shim", "usage_bytes": 5, "limit_bytes": 10},
    )
    row = {"cgroup_id": 8, "tgid": 80, "comm": "job", "way": "other"}
    trace.add("sigkills", 2.5, usage_bytes=6, limit_bytes=UNLIMITED_BYTES, **row)


def test_sigkills_have_places_parents_and_null_for_what_is_not_there(trace: Any) -> None:
    killed(trace)
    found = [kill.to_dict() for kill in sigkills(trace)]
    assert json.loads(json.dumps(found)) == [
        {
            "time": found[0]["time"],
            "target": {"pid": 70, "comm": "web", "cgroup": "/docker/1", "container": "shop"},
            "sender": {
                **{"pid": 90, "comm": "runc", "cgroup": "/system.slice", "container": None},
                "parents": [{"pid": 91, "comm": "containerd-shim"}],
            },
            "way": "pidfd",
            "since_sigterm_s": 1.5,
            "usage_bytes": 5,
            "limit_bytes": 10,
        },
        {
            "time": found[1]["time"],
            "target": {"pid": 80, "comm": "job", "cgroup": "/jobs", "container": None},
            "sender": None,
            "way": "other",
            "since_sigterm_s": None,
            "usage_bytes": 6,
            "limit_bytes": None,
        },
    ]
    assert found[0]["time"] < found[1]["time"]


def test_sigkills_of_a_cgroup_are_those_of_its_processes(trace: Any) -> None:
    killed(trace)
    assert [kill.target.pid for kill in sigkills(trace, "shop")] == [70]
    assert [kill.target.pid for kill in sigkills(trace, "/jobs")] == [80]
