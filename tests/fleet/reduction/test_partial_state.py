"""What other rules say is the same as from all rows of `timeline`, however they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.costly import COSTLY
from synthetic.fleets.summary_rows import DAY, MIB, at, state

from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.store import Store
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.fleet_answer import Fleet, answer, frame
from tracer.fleet.reduction.fleet_run import fleet
from tracer.fleet.reduction.partial_state import Partial
from tracer.fleet.sizing.other_recommenders import krr_limit_bytes, vpa_limit_bytes
from tracer.fleet.summary.summarize import summarize
from tracer.fleet.summary.time_window import TimeWindow

EXAMPLES = Path(__file__).parents[3] / "traces"
DAYS = 20
Limits = dict[str, tuple[int | None, int | None]]

minutes = st.integers(0, DAYS * 1440)
sizes = st.none() | st.integers(0, 4000).map(lambda mib: mib * MIB)
pods = st.sampled_from(
    [
        {"workload": "shop/web/app", "namespace": "shop", "pod": "web-1", "cgroup_id": 11},
        {"workload": "shop/web/app", "namespace": "shop", "pod": "web-1", "cgroup_id": 12},
        {"workload": "shop/web/app", "namespace": "test", "pod": "web-1", "cgroup_id": 13},
        {"workload": "shop/web/proxy", "namespace": "shop", "pod": "web-1", "cgroup_id": 14},
        {"workload": "postgres", "cgroup_id": 15},
        {"workload": "postgres", "cgroup_id": 16},
    ]
)
seen = st.builds(
    lambda pod, minute, size: {**pod, "time": at(minute), "max_working_set_bytes": size}, pods, minutes, sizes
)
killed = st.builds(
    lambda pod, minute, limit: {
        **pod, "time": at(minute), "ktime_ns": minute * 60 * 10**9, "victim_pid": pod["cgroup_id"],
        "limit_bytes": limit,
    },
    pods, minutes, sizes,
)  # fmt: skip


@st.composite
def boots(draw: st.DrawFn) -> list[Partial]:
    """Draw the states of some boots, each with all of its rows."""
    found = []
    for number in range(draw(st.integers(1, 6))):
        origin = {
            "boot_id": draw(st.sampled_from([f"boot-{number}", None])),
            "trace_id": f"{number:016x}",
            "trace": f"trace-{number}",
        }
        rows: dict[str, Sequence[Mapping[str, Any]]] = {
            "sources": [{"end": at(draw(minutes))}],
            "timeline": draw(st.lists(seen, max_size=12)),
            "kills": draw(st.lists(killed, max_size=3, unique_by=lambda row: row["victim_pid"])),
        }
        found.append(state(**{name: [{**origin, **row} for row in some] for name, some in rows.items()}))
    return found


def rules_on_all_rows(timeline: pd.DataFrame, kills: pd.DataFrame, now: pd.Timestamp) -> Limits:
    """Return workload -> the limits of the VPA and of KRR by their own functions."""
    timeline, kills = (
        rows.assign(
            pod=[
                f"{boot}/{namespace}/{pod}" if isinstance(pod, str) else f"{boot} {cgroup_id}"
                for boot, namespace, pod, cgroup_id in zip(
                    rows["boot_id"].fillna(rows["trace_id"]),
                    *(rows[name] for name in ("namespace", "pod", "cgroup_id")),
                    strict=True,
                )
            ]
        )
        for rows in (timeline, kills)
    )
    samples = timeline[timeline["max_working_set_bytes"].notna()]
    samples = samples.rename(columns={"max_working_set_bytes": "bytes"})
    found: Limits = {}
    for name in {*samples["workload"], *kills["workload"]}:
        rows, own = samples[samples["workload"] == name], kills[kills["workload"] == name]
        found[name] = vpa_limit_bytes(rows, own, now), krr_limit_bytes(rows, own, now)
    return found


def limits_of(found: Fleet) -> Limits:
    return {one.workload: (one.vpa_limit_bytes, one.krr_limit_bytes) for one in found.workloads}


def with_lives(whole: Partial) -> Partial:
    """Return the state with a life of each workload, since the answer has only those with one."""
    names = sorted({*whole.intervals["workload"].to_pylist(), *whole.last_peaks["workload"].to_pylist()})
    lives = [{"workload": name, "cgroup_id": number} for number, name in enumerate(names)]
    return partial_state.union([whole, partial_state.closed(state(lives=lives))])


@COSTLY
@given(of_boots=boots(), data=st.data())
def test_limits_of_any_split_are_those_of_the_rules_on_all_rows(
    of_boots: list[Partial], data: st.DataObject
) -> None:
    timeline, kills = (
        pd.concat([frame(getattr(one, name)) for one in of_boots], ignore_index=True)
        for name in ("timeline", "kills")
    )
    states = [partial_state.closed(one) for one in data.draw(st.permutations(of_boots))]
    while len(states) > 1:
        count = data.draw(st.integers(2, len(states)))
        states = [*states[count:], partial_state.union(states[:count])]
    (whole,) = states
    assert whole.end is not None
    found = limits_of(answer(with_lives(whole)))
    expected = rules_on_all_rows(timeline, kills, whole.end)
    assert {name: found.get(name, (None, None)) for name in expected} == expected


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(st.builds(dict, workload=st.sampled_from("ab"), time=minutes, bytes=st.integers(0, 9))),
    since=st.integers(0, DAYS * 1440),
)
def test_last_peaks_have_the_greatest_value_since_any_moment(rows: list[dict[str, Any]], since: int) -> None:
    timeline = state(
        timeline=[
            {"workload": row["workload"], "time": at(row["time"]), "max_working_set_bytes": row["bytes"]}
            for row in rows
        ]
    ).timeline
    kept = partial_state.last_peaks(timeline).to_pylist()
    for name in "ab":
        values = [row["bytes"] for row in rows if row["workload"] == name and row["time"] > since]
        found = [row["bytes"] for row in kept if row["workload"] == name and row["time"] > at(since)]
        assert max(found, default=None) == max(values, default=None)
    of_a = [row["bytes"] for row in sorted(kept, key=lambda row: row["time"]) if row["workload"] == "a"]
    assert of_a == sorted(set(of_a), reverse=True)


def test_state_of_many_days_has_those_that_count() -> None:
    """A leak that restarts each day, a little smaller: of 720 samples, 8 intervals and 14 peaks matter."""
    timeline = [
        {"time": at(60 * hour), "max_working_set_bytes": hour % 24 * MIB + 24 * 30 - hour}
        for hour in range(30 * 24)
    ]
    days = [
        partial_state.closed(
            state(
                sources=[{"end": at(1440 * (day + 1)), "trace_id": f"{day:016x}"}],
                timeline=[{**row, "boot_id": f"boot-{day}"} for row in timeline[24 * day : 24 * (day + 1)]],
            )
        )
        for day in range(30)
    ]
    whole = partial_state.union(days)
    assert (whole.intervals.num_rows, whole.last_peaks.num_rows) == (8, 14)
    assert whole.timeline.num_rows == 0


def test_limits_of_traces_and_of_a_dataset_are_those_of_the_rules(tmp_path: Path) -> None:
    paths = [EXAMPLES / name for name in ("sharedbuffers", "throttle", "parent-limit")]
    summaries = [summarize(AnalysedTrace(path)) for path in paths]
    timeline, kills = (
        frame(pa.concat_tables([one.tables[name] for one in summaries])) for name in ("timeline", "kills")
    )
    found = fleet([str(path) for path in paths], workers=1)
    assert found.end is not None
    expected = rules_on_all_rows(timeline, kills, found.end)
    assert len([one for one in expected.values() if None not in one]) >= 3
    limits = limits_of(found)
    assert {name: limits[name] for name in expected} == expected
    store = Store(str(tmp_path / "dataset"))
    appender = Appender(store, is_raw=False)
    for path in paths:
        appender.append(AnalysedTrace(path))
    assert limits_of(fleet([store.url], workers=1)) == limits
    assert compact(store) > 0
    assert limits_of(fleet([store.url, str(paths[0])], workers=1)) == limits


@pytest.mark.parametrize("days", [8.5, 30])
def test_workload_without_a_recent_sample_has_no_limits_of_others(days: float) -> None:
    old = {"time": DAY, "max_working_set_bytes": MIB}
    whole = state(sources=[{"end": at(1440 * days)}], timeline=[old], lives=[{}])
    (one,) = answer(partial_state.closed(partial_state.once(whole))).workloads
    assert one.vpa_limit_bytes is None or days < 9
    assert (one.krr_limit_bytes is None) == (days > 14)


def test_other_sigkills_count_once_by_sender_workload_and_host_in_the_window() -> None:
    def sent(minute: float, pid: int, **more: Any) -> dict[str, Any]:
        return {"time": at(minute), "ktime_ns": round(minute * 60e9), "pid": pid, **more}

    first = [sent(1, 7), sent(1, 8), sent(2, 9, sender_comm=None), sent(50, 9)]
    copies = [{**one, "trace_id": "0000000000000002"} for one in [first[0], sent(3, 7)]]
    older = {"trace_id": "0000000000000003", "boot_id": "boot-2", "sigkills": None}
    boot = state(sources=[{}, {"trace_id": "0000000000000002"}], sigkills=[*first, *copies])
    other = state(sources=[older], sigkills=[sent(4, 7, boot_id="boot-2", host="node-2")])
    window = TimeWindow(until_ns=pd.Timestamp(at(49)).value)
    closed = [partial_state.closed(partial_state.once(one), window) for one in (boot, other)]
    found = answer(partial_state.union(closed, window), window)
    assert found.sigkills is not None
    assert [(one.sender, one.workload, one.host, one.count) for one in found.sigkills] == [
        ("runc", "web", "node-1", 3),
        (None, "web", "node-1", 1),
        ("runc", "web", "node-2", 1),
    ]
    assert (found.sigkills[0].first, found.sigkills[0].last) == (at(1), at(3))
    assert found.traces_without_sigkills == 1
    assert found.to_dict()["sigkills"][1]["sender"] is None


def test_kills_without_a_start_may_be_those_of_another_recorder() -> None:
    def seen(late_ns: int, number: int, start_ns: int | None) -> dict[str, Any]:
        when = {"time": at(1) + timedelta(microseconds=late_ns / 1000), "ktime_ns": late_ns}
        return {**when, "trace_id": f"{number:016x}", "victim_start_ns": start_ns}

    for starts, kills, repeated in (
        ((41, 41), 1, 0),
        ((41, None), 2, 1),
        ((None, None), 2, 1),
        ((41, 43), 2, 0),
    ):
        rows = [seen(11_000 * number, number, start) for number, start in enumerate(starts)]
        rows.append({**seen(0, 3, None), "victim_pid": 8})
        found = answer(partial_state.closed(partial_state.once(state(sources=[{}], kills=rows))))
        assert (found.kills[0].count, found.perhaps_repeated_kills) == (kills + 1, repeated)


@pytest.mark.parametrize(("minute", "apart_ns", "repeated"), [(61, 11_000, 1), (1, 60 * 10**9, 0)])
def test_kills_may_be_one_by_the_clock_that_nobody_sets(minute: int, apart_ns: int, repeated: int) -> None:
    """Someone set the clock of the day by an hour, or back by a minute, between the two traces."""
    kills: list[dict[str, Any]] = [
        {"time": at(1), "ktime_ns": 10**9},
        {"time": at(minute), "ktime_ns": 10**9 + apart_ns, "trace_id": "0000000000000002"},
        {"time": at(30), "ktime_ns": 10**12, "trace_id": "0000000000000003"},
        {"time": at(40), "victim_start_ns": None, "kmsg": "only"},
    ]
    found = answer(partial_state.closed(partial_state.once(state(sources=[{}], kills=kills))))
    assert (found.kills[0].count, found.perhaps_repeated_kills) == (4, repeated)


def test_fleet_of_older_traces_does_not_know_its_other_sigkills() -> None:
    found = answer(partial_state.closed(state(sources=[{"sigkills": None}])))
    assert found.sigkills is None
    assert found.to_dict()["sigkills"] is None
