"""The content for viewers of timelines, made from small results of the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tracer.analysis.core.lookups import Processes
from tracer.analysis.results.kill import OomReport
from tracer.analysis.views.reclaim import KINDS
from tracer.render.export.tracks import BEGIN, COUNTERS, END, MARK, Tracks, event_order, from_analyses
from tracer.trace.read.reader import Trace

START_NS = 1_764_000_000_000_000_000
MS = 1_000_000
HOSTILE = "\x1b[31m\n"


def timeline(**columns: Sequence[Any]) -> pd.DataFrame:
    """Return rows of 100 ms of a cgroup; a column that is not given is not known."""
    count = len(next(iter(columns.values())))
    index = pd.to_datetime(START_NS + 100 * MS * np.arange(count), utc=True).rename("time")
    whose: dict[str, Any] = {"cgroup": "/a", "cgroup_id": 1, "container": None, "run": 1}
    unknown = dict.fromkeys([*COUNTERS, "is_limited"])
    frame = pd.DataFrame(whose | unknown | columns, index=index)
    frame = frame.astype(dict.fromkeys(COUNTERS, "Int64") | {"is_limited": "boolean"})
    frame.attrs["every_ns"] = 100 * MS
    return frame


def nested(rows: Sequence[tuple[str, int, int, int, int]]) -> pd.DataFrame:
    """Return spans from (kind, begin in ms, duration in ms, depth, tgid); each thread is its process."""
    kinds, begins, lengths, depths, tgids = zip(*rows, strict=True) if rows else ((),) * 5
    columns = {
        "duration_ns": np.array(lengths, np.int64) * MS,
        "kind": pd.Categorical(kinds, categories=[*KINDS, "kswapd"]),
        "depth": np.array(depths, np.int64),
        "cgroup_id": np.ones(len(rows), np.int64),
        "tgid": np.array(tgids, np.int64),
        "pid": np.array(tgids, np.int64),
        "attempt": np.full(len(rows), -1),
    }
    times = pd.to_datetime(START_NS + np.array(begins, np.int64) * MS, utc=True)
    return pd.DataFrame(columns, index=pd.DatetimeIndex(times, name="time"))


def tracks(
    frame: pd.DataFrame, spans: Sequence[tuple[str, int, int, int, int]] = (), kills: Sequence[OomReport] = ()
) -> Tracks:
    empty = Trace(Path(__file__).parents[3] / "traces" / "anon")
    return from_analyses(
        timeline=frame,
        nested=nested(spans),
        reclaim=empty.reclaim.iloc[:0],
        processes=Processes(empty.tasks.iloc[:0], empty.oom.iloc[:0], 0),
        paths={},
        kills=kills,
    )


def test_counter_has_the_known_changes_and_the_last_value_at_the_ends_of_rows() -> None:
    (cgroup,) = tracks(timeline(usage_bytes=[None, 5, 5, 7, 7, 7])).cgroups
    (usage,) = cgroup.counters
    assert usage.name == "usage"
    assert ((usage.times_ns - START_NS) // MS).tolist() == [200, 400, 600]
    assert usage.values.tolist() == [5, 7, 7]


def test_removed_limit_is_marked_and_one_that_was_never_set_is_not() -> None:
    limits = [9, None, None, 9, None]
    (cgroup,) = tracks(timeline(limit_bytes=limits, is_limited=[one is not None for one in limits])).cgroups
    assert [(time_ns - START_NS) // MS for time_ns in cgroup.unlimited_ns] == [200, 500]
    (cgroup,) = tracks(timeline(usage_bytes=[1, 1], is_limited=[False, False])).cgroups
    assert cgroup.unlimited_ns == ()


def test_lives_of_a_cgroup_are_tracks_of_their_own_with_escaped_names() -> None:
    frame = timeline(usage_bytes=[1, 2, 3], cgroup_id=[1, 1, 2], run=[1, 1, 2])
    frame = frame.assign(cgroup=f"/{HOSTILE}", container="web")
    found = list(tracks(frame).cgroups)
    assert [one.name for one in found] == [r"/\x1b[31m\n (web)", r"/\x1b[31m\n (web), run 2"]
    assert [one.counters[0].values.tolist() for one in found] == [[1, 2], [3]]


def test_empty_timeline_has_no_cgroups() -> None:
    assert list(tracks(timeline(usage_bytes=[1]).iloc[:0]).cgroups) == []


def test_events_of_a_moment_end_before_others_begin(report: OomReport) -> None:
    kill = replace(
        report,
        time=pd.Timestamp(START_NS + 10 * MS, tz="UTC"),
        trigger=replace(report.trigger, pid=5, tgid=5),
        victims=(replace(report.victims[0], pid=5),),
    )
    spans = [
        ("swap_in", 0, 10, 0, 5),
        ("reclaim", 5, 5, 1, 5),
        ("swap_in", 10, 9, 0, 5),
        ("reclaim", 10, 1, 1, 5),
    ]
    found = tracks(timeline(usage_bytes=[1]), spans, [kill])
    phases, positions = event_order(found.spans, found.marks)
    assert list(zip(phases.tolist(), positions.tolist(), strict=True)) == [
        *((BEGIN, 0), (BEGIN, 1), (END, 1), (END, 0)),
        *((MARK, 0), (MARK, 1)),
        *((BEGIN, 2), (BEGIN, 3), (END, 3), (END, 2)),
    ]
    trigger, victim = found.marks
    assert (trigger.is_victim, victim.is_victim) == (False, True)
    assert trigger.flows == victim.flows


@pytest.mark.parametrize("comm", [HOSTILE, None])
def test_kill_without_a_known_trigger_has_no_arrows(report: OomReport, comm: str | None) -> None:
    trigger = replace(report.trigger, pid=None, tgid=None, comm=comm)
    victims = tuple(replace(one, comm=HOSTILE) for one in report.victims)
    found = tracks(timeline(usage_bytes=[1]), kills=[replace(report, trigger=trigger, victims=victims)])
    assert [(mark.is_victim, mark.flows) for mark in found.marks] == [(True, ())] * len(report.victims)
    assert {thread.process_name for thread in found.threads} == {r"\x1b[31m\n"}
    (kill,) = found.kills
    assert "triggered by" not in kill.facts
    assert r"\x1b[31m\n (pid" in str(kill.facts["killed"])
