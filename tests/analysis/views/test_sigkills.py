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
            "psi_some_share": None,
        },
        {
            "time": found[1]["time"],
            "target": {"pid": 80, "comm": "job", "cgroup": "/jobs", "container": None},
            "sender": None,
            "way": "other",
            "since_sigterm_s": None,
            "usage_bytes": 6,
            "limit_bytes": None,
            "psi_some_share": None,
        },
    ]
    first, second = (one["time"] for one in found)
    assert first is not None and second is not None and first < second


def test_sigkills_of_a_cgroup_are_those_of_its_processes(trace: Any) -> None:
    killed(trace)
    assert [kill.target.pid for kill in sigkills(trace, "shop")] == [70]
    assert [kill.target.pid for kill in sigkills(trace, "/jobs")] == [80]


def under_pressure(trace: Any, readings: dict[float, int], at_s: float = 10.0) -> float | None:
    """Return the share before a SIGKILL, from readings at their times (s) in ms."""
    for seconds, total_ms in readings.items():
        trace.add("samples", seconds, cgroup_id=7, source="periodic", psi_some_total_us=total_ms * 1000)
    trace.add("sigkills", at_s, cgroup_id=7, tgid=70, comm="web", way="kill")
    (found,) = sigkills(trace)
    return found.pressure_share


def test_pressure_is_of_the_ten_seconds_before_between_values_that_are_new(trace: Any) -> None:
    """The kernel updates the total every two seconds: between, a reading is old. The first reading of the
    ten seconds lacks what was waited before it."""
    updates = {-9.0: 0, 1.5: 4000, 3.5: 5000, 5.5: 5000, 7.5: 6500, 9.5: 8000, 11.5: 9999}
    readings = {
        second / 10: next(total for since, total in reversed(updates.items()) if since <= second / 10)
        for second in range(-50, 130)
    }
    assert under_pressure(trace, readings) == (8000 - 4000) / 8000, "from 1.5 to 9.5 s"


def test_time_without_change_counts_as_without_pressure(trace: Any) -> None:
    readings = {0.5: 300, 4.5: 300, 5.0: 1300, 6.0: 1300, 10.0: 1300}
    assert under_pressure(trace, readings) == 1000 / 9500


def test_pressure_is_not_known_without_readings_before_the_signal(trace: Any) -> None:
    assert under_pressure(trace, {9.9: 5, 10.5: 900}) is None
    trace.recorded()["sigkills"].clear()
    assert under_pressure(trace, {9.2: 5, 9.95: 700}) is None, "less than a second"
