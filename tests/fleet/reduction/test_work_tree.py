"""Any split and order of the traces gives the same answer, which is that of pandas on all rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dask.local import get_sync
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from synthetic.fleets.summary_rows import MIB, at, state

from tracer.fleet.reduction import partial_state, work_tree
from tracer.fleet.reduction.fleet_answer import Fleet, answer, frame
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.reduction.piece_reader import TracePiece
from tracer.fleet.reduction.work_tree import together, tree

WORKLOADS = ("web", "db", "batch")


@dataclass(frozen=True)
class Recorded:
    """A trace: its boot, and its rows of the summary tables."""

    boot: int
    number: int
    rows: Mapping[str, Sequence[Mapping[str, Any]]]

    def state(self) -> Partial:
        origin = {
            "host": f"node-{self.boot % 2}",
            "boot_id": f"boot-{self.boot}",
            "trace": f"trace-{self.number}",
            "trace_id": f"{self.number:016x}",
        }
        return state(**{name: [{**origin, **row} for row in rows] for name, rows in self.rows.items()})


minutes = st.integers(0, 3000)
amounts = st.none() | st.integers(0, 400).map(lambda pages: pages * 4096 + 1)
kills = st.builds(
    lambda minute, pid, name, cause: {
        "time": at(minute), "ktime_ns": minute * 60 * 10**9, "victim_pid": pid, "workload": name,
        "victim_start_ns": minute * 60 * 10**9 - 1, "cgroup": f"/{name}", "cause": cause,
        "limit_bytes": 100 * MIB, "is_limited": True,
    },
    minutes, st.integers(1, 3), st.sampled_from(WORKLOADS), st.sampled_from(["shmem", "anon_growth", None]),
)  # fmt: skip
lives = st.builds(
    lambda minute, number, peak, limit: {
        "time": at(minute), "end": at(minute + 9), "made_ktime_ns": minute, "cgroup_id": number,
        "workload": WORKLOADS[number % 3], "cgroup": f"/{WORKLOADS[number % 3]}",
        "peak_unreclaimable_bytes": peak, "limit_bytes": limit, "is_limited": limit is not None,
        "first_ktime_ns": minute * 60 * 10**9, "last_ktime_ns": (minute + 9) * 60 * 10**9,
    },
    minutes, st.integers(1, 9), amounts, amounts,
)  # fmt: skip
evictors = st.builds(
    lambda minute, name, evicted, refaulted: {
        "time": at(minute), "ktime_ns": minute * 60 * 10**9, "evictor_workload": name,
        "first_ktime_ns": minute * 60 * 10**9, "last_ktime_ns": (minute + 1) * 60 * 10**9,
        "evictor_cgroup_id": WORKLOADS.index(name), "evictor_cgroup": f"/{name}",
        "evicted_bytes": evicted, "refaulted_bytes": refaulted,
    },
    minutes, st.sampled_from(WORKLOADS), amounts, amounts,
)  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> list[Recorded]:
    """Draw traces of four boots on two hosts; kills and lives of one boot may be in several of them, and
    each recorder reads the clock for itself."""
    boots = draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
    shared = {boot: draw(st.lists(kills, max_size=4)) for boot in set(boots)}
    return [
        Recorded(
            boot,
            number,
            {
                "sources": [{"end": at(draw(minutes) + 3000), "lost_records": draw(st.none() | minutes)}],
                "kills": [
                    {**row, "ktime_ns": row["ktime_ns"] + late_ns}
                    for row in draw(st.lists(st.sampled_from(found), unique_by=id) if found else st.just([]))
                ],
                "lives": draw(st.lists(lives, max_size=4, unique_by=lambda row: row["cgroup_id"])),
                "evictors": draw(st.lists(evictors, max_size=3, unique_by=_of_a_minute)),
            },
        )
        for number, boot in enumerate(boots)
        for found, late_ns in [(shared[boot], draw(st.integers(0, 10**9)))]
    ]


def _of_a_minute(row: Mapping[str, Any]) -> Any:
    return row["ktime_ns"], row["evictor_workload"]


def reduced(traces: Sequence[Recorded], monkeypatch: pytest.MonkeyPatch, fan_in: int) -> Fleet:
    """Return the answer by the graph of Dask, in which each trace is a piece."""
    of_piece = {TracePiece(Place(str(one.number), str(one.number))): one for one in traces}
    with monkeypatch.context() as patch:
        patch.setattr(work_tree, "FAN_IN", fan_in)
        patch.setattr(work_tree, "read", lambda piece: of_piece[piece].state())
        work = tree(together({piece: [one.boot] for piece, one in of_piece.items()}))
        return answer(get_sync(dict(work.tasks), work.whole))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=12,  # of up to eight traces: a state or a merge that is left out is found by each dozen
)
@given(traces=fleets(), data=st.data())
def test_answer_is_the_same_for_any_split_and_order(
    traces: list[Recorded], data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(
        partial_state.closed(partial_state.once(partial_state.union(one.state() for one in traces)))
    )
    shuffled = data.draw(st.permutations(traces))
    fan_in = data.draw(st.integers(2, 5))
    assert reduced(shuffled, monkeypatch, fan_in).to_dict() == whole.to_dict()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=12,
)
@given(traces=fleets())
def test_answer_is_that_of_pandas_on_all_rows(
    traces: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reduced(traces, monkeypatch, fan_in=2).to_dict()
    rows = {
        name: pd.concat([frame(getattr(one.state(), name)) for one in traces], ignore_index=True)
        for name in partial_state.READ
    }
    kills = rows["kills"].drop_duplicates(["boot_id", "victim_start_ns", "victim_pid"])
    counts = kills.fillna({"cause": "unknown"}).groupby(["cause", "workload", "host"]).size()
    assert {(one["cause"], one["workload"], one["host"]): one["count"] for one in found["kills"]} == dict(
        counts
    )
    of_hosts = rows["sources"].groupby("host").agg(traces=("trace_id", "size"), lost=("lost_records", "sum"))
    assert {one["host"]: (one["traces"], one["lost_records"] or 0) for one in found["hosts"]} == {
        host: (row.traces, row.lost) for host, row in of_hosts.iterrows()
    }
    distinct = rows["lives"].drop_duplicates(["boot_id", "cgroup_id"])
    runs = distinct.groupby("workload").size()
    assert {one["workload"]: one["runs"] for one in found["workloads"] if one["runs"]} == dict(runs)


@settings(deadline=None, max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(peaks=st.lists(st.integers(1, 2**60), min_size=20, max_size=20))
def test_quantiles_are_exact_values_of_the_runs(peaks: list[int]) -> None:
    """Workload n has the first n peaks: each example has each number of runs."""
    runs = [
        {"workload": f"of {count}", "cgroup_id": 100 * count + number, "made_ktime_ns": number}
        | {"cgroup": f"/{count}", "peak_unreclaimable_bytes": peak}
        for count in range(1, len(peaks) + 1)
        for number, peak in enumerate(peaks[:count])
    ]
    found = answer(partial_state.closed(partial_state.once(state(sources=[{}], lives=runs)))).workloads
    assert {one.workload: one.runs for one in found} == {f"of {count}": count for count in range(1, 21)}
    for one in found:
        ordered = sorted(peaks[: one.runs])
        assert one.peak_unreclaimable_bytes.max == ordered[-1]
        assert one.peak_unreclaimable_bytes.p50 == ordered[int(np.ceil(one.runs * 0.5)) - 1]
        assert one.peak_unreclaimable_bytes.p90 == ordered[(9 * one.runs + 9) // 10 - 1]


def test_broken_pieces_are_kept_by_every_union(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [TracePiece(Place(f"/{number}", f"/{number}")) for number in range(7)]
    monkeypatch.setattr(work_tree, "FAN_IN", 2)
    monkeypatch.setattr(
        work_tree, "read", lambda piece: partial_state.nothing(Broken(piece.shown, "damaged"))
    )
    work = tree([[piece] for piece in pieces])
    found = get_sync(dict(work.tasks), work.whole)
    assert sorted(one.path for one in found.broken) == [f"/{number}" for number in range(7)]
    assert found.sources.num_rows == 0


def test_pieces_with_a_name_in_common_are_together() -> None:
    a, b, c, d = (TracePiece(Place(f"/{name}", f"/{name}")) for name in "abcd")
    closures = together({a: ["boot-1"], b: ["boot-2", "boot-1"], c: ["boot-3"], d: ["boot-2"]})
    assert sorted(sorted(piece.shown for piece in one) for one in closures) == [["/a", "/b", "/d"], ["/c"]]


def test_pieces_without_a_name_are_alone() -> None:
    a, b = TracePiece(Place("/a", "/a")), TracePiece(Place("/b", "/b"))
    assert together({a: [], b: []}) == [[a], [b]]


def test_no_piece_is_the_state_of_no_trace() -> None:
    work = tree([])
    assert get_sync(dict(work.tasks), work.whole) == partial_state.nothing()
