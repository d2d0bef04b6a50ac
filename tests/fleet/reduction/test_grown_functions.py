"""The functions that grew before the kills of many hosts."""

from __future__ import annotations

from typing import Any

import pandas as pd
from synthetic.fleets.summary_rows import at, state

from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.fleet_answer import GrownFunction, answer
from tracer.fleet.summary.time_window import TimeWindow

LOAD = {"grown_function": "load_rows", "grown_file": "app.py", "grown_share": 0.7}
GROW = {"grown_function": "grow", "grown_module": "worker", "grown_share": 1.0}


def kill(host: int, minute: int, **columns: Any) -> dict[str, Any]:
    of_host = {"host": f"node-{host}", "boot_id": f"boot-{host}", "trace_id": f"{host:016x}"}
    return {**of_host, "time": at(minute), "ktime_ns": minute * 60_000_000_000, "kill_id": minute, **columns}


KILLS = [
    kill(1, 5, **LOAD, grown_line=41),
    kill(2, 3, **LOAD, grown_line=38, workload="api"),
    kill(2, 9, **LOAD, grown_line=44),
    kill(1, 7, **GROW),
    kill(3, 8, **{**GROW, "grown_module": "other"}),
    kill(3, 4),
]


def test_functions_are_counted_over_hosts_and_lines() -> None:
    found = answer(partial_state.closed(partial_state.once(state(kills=KILLS))))
    times = [pd.Timestamp(at(minute)) for minute in range(10)]
    assert found.code == [
        GrownFunction("load_rows", "app.py", 44, None, 3, 2, 2, times[3], times[9]),
        GrownFunction("grow", None, None, "other", 1, 1, 1, times[8], times[8]),
        GrownFunction("grow", None, None, "worker", 1, 1, 1, times[7], times[7]),
    ]
    first = found.to_dict()["code"][0]
    assert (first["function"], first["line"], first["count"], first["hosts"]) == ("load_rows", 44, 3, 2)


def test_only_kills_of_the_window_count() -> None:
    until = pd.Timestamp(at(6)).value
    window = TimeWindow(None, until)
    found = answer(partial_state.closed(partial_state.once(state(kills=KILLS)), window), window)
    assert [(one.function, one.line, one.count, one.hosts) for one in found.code] == [("load_rows", 41, 2, 2)]


def test_fleet_without_samples_has_no_code() -> None:
    assert answer(partial_state.closed(partial_state.once(state(kills=[kill(1, 1)])))).code == []
