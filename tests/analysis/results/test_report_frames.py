"""Kills and cgroups as DataFrames and as JSON, and the `repr` of a trace and of a report."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

import tracer
from tracer.analysis.results import report_frames
from tracer.analysis.trace import AnalysedTrace
from tracer.schema import UNLIMITED_BYTES

TRACES = Path(__file__).parents[3] / "traces"
HOSTILE = "<script>\x1b[31m\u202e\n"


def test_kills_of_a_group_kill_have_a_row_for_each_victim() -> None:
    trace = tracer.open(TRACES / "group-kill")
    (report,) = trace.explain()
    frame = trace.kills()
    assert frame["pid"].tolist() == [victim.pid for victim in report.victims]
    assert len(frame) > 1
    assert set(frame["cause"]) == {report.verdict.cause}
    assert set(frame["kill_id"]) == {report.kill_id}
    assert str(frame.index.dtype) == "datetime64[ns, UTC]"
    assert frame.index[0] == report.time


def test_kills_without_a_kill_have_the_same_columns() -> None:
    none, some = (tracer.open(TRACES / name).kills() for name in ("thrash", "page-cache"))
    assert none.empty
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
    assert str(none.index.dtype) == str(some.index.dtype)


def test_held_has_a_row_for_each_cgroup() -> None:
    cgroups, frame = AnalysedTrace(TRACES / "thrash").held_cgroups(), tracer.open(TRACES / "thrash").held()
    assert frame["cgroup"].tolist() == [one.cgroup for one in cgroups]
    assert frame["peak_usage_bytes"].tolist() == [one.peak_usage_bytes for one in cgroups]
    assert str(frame["peak_time"].dtype) == "datetime64[ns, UTC]"


def test_times_are_timestamps_in_records_and_text_in_json() -> None:
    held = AnalysedTrace(TRACES / "thrash").held_cgroups()[0]
    assert isinstance(held.peak_time, pd.Timestamp)
    assert held.peak_time.tzname() == "UTC"
    stuck = replace(held, stuck_since=held.peak_time, recorded_until=held.peak_time)
    for document in (stuck.to_dict(), AnalysedTrace(TRACES / "page-cache").explain()[0].to_dict()):
        assert json.loads(json.dumps(document)) == document
    text = held.peak_time.isoformat(timespec="microseconds")
    document = stuck.to_dict()
    assert [document[name] for name in ("peak_time", "stuck_since", "recorded_until")] == [text] * 3


def test_limit_that_is_not_set_is_na_with_a_flag() -> None:
    (one, *_) = AnalysedTrace(TRACES / "thrash").held_cgroups()
    limits = [one.limit_bytes, UNLIMITED_BYTES, None]
    cgroups = [replace(one, limit_bytes=limit, peak_time=None) for limit in limits]
    frame = report_frames.held(cgroups)
    assert frame["limit_bytes"].tolist() == [one.limit_bytes, pd.NA, pd.NA]
    assert frame["is_limited"].tolist() == [True, False, pd.NA]
    documents = [cgroup.to_dict() for cgroup in cgroups]
    assert [document["limit_bytes"] for document in documents] == [one.limit_bytes, None, None]
    assert [document["is_limited"] for document in documents] == [True, False, None]


def test_repr_of_a_trace_is_a_short_summary() -> None:
    trace = tracer.open(TRACES / "page-cache")
    assert "charge 1,232" in repr(trace)
    assert "kernel 6.18" in repr(trace)
    assert len(repr(trace).splitlines()) < 10
    assert trace._repr_html_().startswith("<table>")


def test_repr_with_hostile_names_escapes_them(tmp_path: Path) -> None:
    path = Path(shutil.copytree(TRACES / "page-cache", tmp_path / HOSTILE.replace("/", "")))
    trace = tracer.open(path)
    (report,) = trace.explain()
    owner = replace(report.limit_owner, container=HOSTILE)
    hostile = replace(report, limit_owner=owner, victims=(replace(report.victims[0], comm=HOSTILE),))
    for shown in (trace, hostile):
        assert all(line.isprintable() for line in repr(shown).splitlines())
        assert "<script>" in repr(shown)
        assert "&lt;script&gt;" in shown._repr_html_()
        assert "<script>" not in shown._repr_html_()
        assert shown._repr_html_().isprintable()


def test_package_has_its_version_and_type_marker() -> None:
    assert tracer.__version__ == tracer.VERSION
    assert importlib.resources.files("tracer").joinpath("py.typed").is_file()
