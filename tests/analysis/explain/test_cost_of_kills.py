"""The cost of one kill among many: counted calls and rows, which no load changes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import pytest
from synthetic.restarts import Restarts

from tracer.analysis.core.rows import RowIndex, RowsByThing
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain.postmortem import PostMortems
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views import lost_time

KILLS: Final = 3
MEASURES: Final = ("outlines", "listed", "judged", "summarized", "all")
_OF_TABLES: Final = tuple(
    f"/pandas/core/{name}" for name in ("frame.py", "series.py", "generic.py", "indexing.py", "internals/")
)
"""The modules of pandas that take rows or columns out of tables."""


def work_of(trace: Path, measure: str, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return the calls of Python functions, those into tables of pandas, the rows found by a key, and the
    things (processes, cgroups) whose rows up to a moment are counted."""
    post_mortems, work, called = PostMortems(AnalysedTrace(trace)), Counter[str](), Counter[str]()
    rows_for, counts_at = RowIndex.rows_for, RowsByThing.counts_at

    def counted(index: RowIndex, key: int) -> Any:
        rows = rows_for(index, key)
        work["rows"] += len(rows)
        return rows

    def counted_things(rows: RowsByThing, *arguments: Any) -> Any:
        counts = counts_at(rows, *arguments)
        work["things"] += len(counts)
        return counts

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called[frame.f_code.co_filename] += 1

    with monkeypatch.context() as patch:
        patch.setattr(RowIndex, "rows_for", counted)
        patch.setattr(RowsByThing, "counts_at", counted_things)
        profile = sys.getprofile()
        sys.setprofile(count)
        try:
            getattr(post_mortems, measure)()
        finally:
            sys.setprofile(profile)
    work["calls"] = called.total()
    work["of tables"] = sum(
        calls for file, calls in called.items() if any(name in file for name in _OF_TABLES)
    )
    return work


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Traces by the limit that is hit and the number of kills."""
    folder = tmp_path_factory.mktemp("kills")
    kinds: tuple[Literal["own"], Literal["parent"]] = ("own", "parent")
    made: dict[tuple[str, int], Path] = {
        (kind, kills): Restarts(kills, 2, kind, charges=12, folios=8).write(folder / f"{kind} {kills}")
        for kind in kinds
        for kills in (KILLS, 2 * KILLS, 4 * KILLS)
    }
    for kind in kinds:
        for measure in MEASURES:  # modules are imported, and methods of dataclasses are made
            getattr(PostMortems(AnalysedTrace(made[kind, KILLS])), measure)()
    return made


@pytest.mark.parametrize("killed_for", ["own", "parent"])
@pytest.mark.parametrize("measure", MEASURES)
def test_each_kill_takes_as_much_work_among_many_as_among_few(
    traces: dict[tuple[str, int], Path], measure: str, killed_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(kills: int) -> Counter[str]:
        return work_of(traces[killed_for, kills], measure, monkeypatch)

    few, more, many = work(KILLS), work(2 * KILLS), work(4 * KILLS)
    for what in ("calls", "rows"):
        assert 0 < many[what] - more[what] <= 2.1 * (more[what] - few[what]), what
    assert many["things"] - more["things"] <= 2.1 * (more["things"] - few["things"])
    assert few["of tables"] == more["of tables"] == many["of tables"]


@pytest.mark.usefixtures("traces")  # they make what is made once
def test_listed_kill_takes_no_rows_out_of_tables_for_its_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cgroup for each kill, nothing is shared between kills but the columns of the whole tables."""

    def work(kills: int) -> Counter[str]:
        folder = tmp_path / str(kills)
        if not folder.exists():
            Restarts(kills, kills, charges=12, folios=8).write(folder)
        return work_of(folder, "listed", monkeypatch)

    few, more, many = work(KILLS), work(2 * KILLS), work(4 * KILLS)
    for what in ("calls", "rows"):
        assert 0 < many[what] - more[what] <= 2.1 * (more[what] - few[what]), what
    assert few["of tables"] == more["of tables"] == many["of tables"]


def test_time_of_all_tasks_is_read_once_for_all_limit_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, from_trace = [], lost_time.Spending.__init__
    trace = AnalysedTrace(Restarts(KILLS, KILLS, charges=12, folios=8).write(tmp_path / "trace"))

    def counted(spending: lost_time.Spending, of: TraceTables) -> None:
        read.append(of)
        from_trace(spending, of)

    monkeypatch.setattr(lost_time.Spending, "__init__", counted)
    assert len(PostMortems(trace).all()) == KILLS
    assert read == [trace]
