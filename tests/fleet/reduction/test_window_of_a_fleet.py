"""A part of time: the same answer from traces and datasets, and what lies outside is not opened."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic.fleets.summary_rows import DAY, MIB, at, state

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TraceError
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.store import Store
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.fleet_answer import answer
from tracer.fleet.reduction.fleet_run import fleet
from tracer.fleet.summary.time_window import TimeWindow, time_ns

from .conftest import CopyTraces

NAMES = ("fork", "sharedbuffers", "throttle")
"""Of 2026-11-25 09:55, of 2026-11-26 10:10 with three kills, and of 2026-11-26 14:17."""
DAY_NS = int(DAY.timestamp()) * 10**9
MINUTE_NS = 60 * 10**9


@pytest.fixture
def traces(copy_traces: CopyTraces) -> Path:
    return copy_traces(*NAMES)


def window_of(since: str | None, until: str | None) -> TimeWindow:
    return TimeWindow(*(None if text is None else time_ns(text) for text in (since, until)))


def answer_of(path: Path, since: str | None, until: str | None) -> dict[str, Any]:
    return fleet([str(path)], workers=1, window=window_of(since, until)).to_dict()


def dataset_of(folder: Path, traces: Path) -> Store:
    store = Store(str(folder))
    appender = Appender(store, is_raw=False)
    for path in sorted(traces.iterdir()):
        appender.append(AnalysedTrace(path))
    return store


def kill_times(path: Path) -> list[str]:
    return [str(report.to_dict()["time"]) for report in AnalysedTrace(path).explain()]


def test_dataset_gives_the_answer_of_its_traces(traces: Path, tmp_path: Path) -> None:
    store = dataset_of(tmp_path / "dataset", traces)
    second = kill_times(traces / "sharedbuffers")[1]
    windows = [(second, None), (None, second), ("2026-11-26", second), (second, "2026-11-26T12:00")]
    expected = [answer_of(traces, *window) for window in windows]
    assert [sum(kill["count"] for kill in found["kills"]) for found in expected] == [2, 2, 1, 2]
    assert [found["traces"] for found in expected] == [2, 2, 1, 1]
    assert [answer_of(tmp_path / "dataset", *window) for window in windows] == expected
    assert compact(store) > 0
    assert [answer_of(tmp_path / "dataset", *window) for window in windows] == expected


def test_run_counts_whole_for_its_limit(traces: Path) -> None:
    whole = answer_of(traces / "sharedbuffers", None, None)
    after = kill_times(traces / "sharedbuffers")[-1]
    cut = answer_of(traces / "sharedbuffers", after, None)
    (workload,), (cut_workload,) = whole["workloads"], cut["workloads"]
    assert (workload["kills"], cut_workload["kills"]) == (3, 1)
    same = workload.keys() - {"kills", "vpa_limit_bytes", "krr_limit_bytes"}
    assert {key: cut_workload[key] for key in same} == {key: workload[key] for key in same}


def test_trace_outside_is_not_opened(traces: Path) -> None:
    expected = answer_of(traces, "2026-11-26T12:00", "2026-11-27")
    for name in ("fork", "sharedbuffers"):
        for file in (traces / name).iterdir():
            if file.name != "meta.json":
                file.unlink()
    found = answer_of(traces, "2026-11-26T12:00", "2026-11-27")
    assert (found["traces"], found["broken"]) == (1, [])
    assert found == expected


def test_files_of_other_days_and_traces_are_not_opened(traces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    dataset_of(folder, traces)
    expected = answer_of(folder, "2026-11-26", "2026-11-27")
    assert (expected["traces"], expected["broken"]) == (2, [])
    of_many = "host=_many/many-0123456789abcdef.parquet"
    spoilt = [
        folder / f"sources/date=2026-11-28/{of_many}",
        *(
            folder / f"{table}/date=2026-11-{day}/{of_many}"
            for table in ("kills", "lives")
            for day in (24, 28)
        ),
        *(file for file in folder.glob("[!s]*/date=2026-11-25/*/*.parquet")),
    ]
    assert len(spoilt) > 5
    for file in spoilt:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no Parquet")
    assert answer_of(folder, "2026-11-26", "2026-11-27") == expected
    assert len(answer_of(folder, None, None)["broken"]) == len(spoilt)


def test_interrupted_trace_counts_by_its_last_record(traces: Path) -> None:
    path = traces / "fork/meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ended": None}))
    assert answer_of(traces, "2026-11-26", "2026-11-26T12:00")["traces"] == 1
    assert answer_of(traces, "2026-11-25", "2026-11-26")["traces"] == 1


def test_time_without_a_trace_has_no_kill(traces: Path, tmp_path: Path) -> None:
    dataset_of(tmp_path / "dataset", traces)
    for path in (traces, tmp_path / "dataset"):
        found = answer_of(path, "2027-01-01", None)
        assert (found["traces"], found["kills"], found["workloads"], found["begin"]) == (0, [], [], None)
        assert (found["since"], found["until"]) == ("2027-01-01T00:00:00.000000+00:00", None)


def test_path_with_nothing_is_an_error_in_any_time(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with pytest.raises(TraceError, match="there is no trace in it"):
        answer_of(tmp_path, "2027-01-01", None)
    (tmp_path / "broken/meta.json").write_text("{}")
    with pytest.raises(TraceError, match="no trace can be read: "):
        answer_of(tmp_path, "2027-01-01", None)


moments = st.integers(0, 180)


@settings(max_examples=12)  # a window that has its last moment as well is found by each dozen
@given(
    st.lists(st.tuples(moments, st.integers(1, 60), st.integers(0, 30)), max_size=8),
    st.lists(moments, max_size=8, unique=True),
    st.tuples(moments, moments).map(sorted),
)
def test_times_that_follow_each_other_have_each_kill_once(
    runs: list[tuple[int, int, int]], kills: list[int], borders: list[int]
) -> None:
    lives = [
        {"time": at(begin), "end": at(begin + length), "cgroup_id": number, "made_ktime_ns": number}
        | {"peak_unreclaimable_bytes": peak * MIB, "first_ktime_ns": begin, "last_ktime_ns": begin + length}
        for number, (begin, length, peak) in enumerate(runs)
    ]
    found = state(
        sources=[{"time": at(0), "end": at(300)}],
        lives=lives,
        kills=[{"time": at(moment), "ktime_ns": moment} for moment in kills],
    )
    edges = [None, *(DAY_NS + border * MINUTE_NS for border in borders), None]
    windows = [TimeWindow(*ends) for ends in pairwise(edges)]
    parts = [answer(partial_state.closed(partial_state.once(found), one), one) for one in windows]
    assert sum(kill.count for part in parts for kill in part.kills) == len(kills)
    for window, part in zip(windows, parts, strict=True):
        inside = [
            peak * MIB
            for begin, length, peak in runs
            if window.overlaps(*(DAY_NS + moment * MINUTE_NS for moment in (begin, begin + length)))
        ]
        seen = [(one.runs, one.peak_unreclaimable_bytes.max) for one in part.workloads if one.runs]
        assert seen == ([(len(inside), max(inside))] if inside else [])
