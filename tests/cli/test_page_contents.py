from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES, opened, reports_of
from support.thinned import thinned_copy
from synthetic.restarts import Restarts

from tracer.analysis.explain import kill_report, recorded_facts
from tracer.analysis.explain.kill_report import Kill
from tracer.analysis.results.kill import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import what_if
from tracer.cli import page_contents
from tracer.render.page import html
from tracer.render.words import kill_facts, limit_outcomes, sigkill_words
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

MOST_BYTES = 1_000_000
MOST_KILLS = 3


@pytest.fixture
def few_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explain fewer kills on a page, which takes less time."""
    monkeypatch.setattr(html, "MOST_KILLS", MOST_KILLS)


def subject_of(trace: Path, cgroup: str | None = None) -> html.Subject:
    return page_contents.subject(AnalysedTrace(trace), cgroup)


@cache
def recorded(name: str) -> html.Subject:
    """Return the contents of the page of an example, which the tests of this file share."""
    return page_contents.subject(opened(name), None)


@pytest.mark.parametrize("name", NAMES)
def test_page_of_each_recorded_trace_has_a_chart_and_is_small(name: str) -> None:
    subject = recorded(name)
    charts = [*subject.charts_of_kills.values(), *subject.charts_of_held.values()]
    assert len(charts) == max(1, len(subject.reports))
    assert subject.charts_of_kills.keys() == {report.kill_id for report in subject.reports}
    assert len(html.page(subject).encode()) < MOST_BYTES


def test_chart_of_the_newest_kill_has_the_last_moments_and_the_whole_time(tmp_path: Path) -> None:
    subject = subject_of(Restarts(3).write(tmp_path / "trace"))
    views = {kill: [view.words for view in one.views] for kill, one in subject.charts_of_kills.items()}
    assert views == {3: ["the kill", "the last 500 ms", "all"], 2: ["the kill"], 1: ["the kill"]}
    newest, first = subject.charts_of_kills[3], subject.charts_of_kills[1]
    assert newest.strip is not None and len(newest.strip.marks) == 3
    assert first.strip is None
    keys = {one.key for one in subject.charts_of_kills.values()}
    assert keys == {"kill-1", "kill-2", "kill-3"}


@pytest.mark.usefixtures("few_kills")
def test_page_has_charts_and_whole_reports_of_the_explained_kills_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Restarts(MOST_KILLS + 2).write(tmp_path / "trace")
    every, explained, whole = AnalysedTrace(trace).explain(), list[int](), kill_report.whole

    def counted(kill: Kill) -> OomReport:
        explained.append(kill.outline.kill_id)
        return whole(kill)

    monkeypatch.setitem(recorded_facts.DEPTHS, "all", counted)
    monkeypatch.setattr(page_contents, "_other_limits", lambda *_: None)  # explains the first kills as well
    subject = subject_of(trace)
    assert explained == sorted(subject.charts_of_kills) == list(range(3, MOST_KILLS + 3))
    assert len(subject.reports) == MOST_KILLS + 2
    assert subject.reports[2:] == every[2:]
    assert html.page(subject) == html.page(replace(subject, reports=every))
    marks = [[mark for view in one.views for mark in view.marks] for one in subject.charts_of_kills.values()]
    monkeypatch.setattr(page_contents, "_reports", lambda *_: every)
    of_whole = subject_of(trace).charts_of_kills.values()
    assert marks == [[mark for view in one.views for mark in view.marks] for one in of_whole]


def test_page_has_the_range_of_the_run_as_explain_does() -> None:
    subject, reports = recorded("sharedbuffers"), reports_of("sharedbuffers")
    assert subject.reports == reports
    needed = kill_facts.minimum_limit(reports[2])
    assert needed is not None and "avoided all 3 kills for this limit is between 83 MiB and 146 MiB" in needed
    page = html.page(subject).replace("\N{NO-BREAK SPACE}", " ")
    assert page.count(needed) == 3 and subject.other_limits is not None
    assert limit_outcomes.answer(subject.other_limits) in page


def test_chart_of_a_cgroup_is_left_to_that_cgroup(tmp_path: Path) -> None:
    trace = Restarts(4, cgroups=2).write(tmp_path / "trace")
    subject = subject_of(trace, "one-1")
    assert sorted(subject.charts_of_kills) == [2, 4]
    assert {chart.place for chart in subject.charts_of_kills.values()} == {"/pods/one-1"}


def test_kill_for_the_limit_of_a_parent_shows_the_parent(tmp_path: Path) -> None:
    subject = subject_of(Restarts(2, cgroups=2, killed_for="parent").write(tmp_path / "trace"))
    assert {chart.place for chart in subject.charts_of_kills.values()} == {"/pods"}


def test_chart_of_slow_work_begins_with_the_slow_time() -> None:
    (chart,) = recorded("livelock").charts_of_held.values()
    assert [view.words for view in chart.views] == ["the slow time", "all"]
    assert chart.strip is not None


def test_chart_of_a_cgroup_that_lived_shows_its_whole_life() -> None:
    (chart,) = recorded("thrash").charts_of_held.values()
    assert [view.words for view in chart.views] == ["all"]
    assert chart.strip is None


def test_rows_of_a_thinned_trace_are_no_shorter_than_its_own(tmp_path: Path) -> None:
    trace = thinned_copy(TRACES / "page-cache", tmp_path / "thinned", 250)
    (chart,) = subject_of(trace).charts_of_kills.values()
    (view,) = chart.views
    assert view.note.startswith("One point is 250 ms.")


def test_times_that_are_coarser_than_the_rows_are_reported(tmp_path: Path) -> None:
    trace = thinned_copy(TRACES / "page-cache", tmp_path / "thinned", 250)
    meta = json.loads((trace / "meta.json").read_text())
    (kill,) = AnalysedTrace(trace).explain()
    assert kill.time is not None
    fine = {"begin": (kill.time - pd.Timedelta("500ms")).isoformat(), "every_ms": 0}
    meta["history"]["fineness"].append(fine)
    (trace / "meta.json").write_text(json.dumps(meta))
    (chart,) = subject_of(trace).charts_of_kills.values()
    story, last = chart.views
    assert story.note.startswith("One point is 10 ms. Rows are kept one in 250 ms from 11:04:01.6")
    assert story.note.endswith("so times within are no finer.")
    assert last.note == "One point is 10 ms."


def test_trace_without_any_cgroup_has_no_chart(tmp_path: Path) -> None:
    described = begin(command_line=["record"], cgroup_version=2, filters={}, probes={})
    TraceWriter(tmp_path / "trace", described, force=False).close("nothing to see")
    subject = subject_of(tmp_path / "trace")
    assert subject.charts_of_kills == subject.charts_of_held == {}
    assert "No OOM kill" in html.page(subject)


@pytest.mark.parametrize("name", ["thrash", "page-cache"])
def test_page_has_the_run_at_other_limits(name: str) -> None:
    subject = recorded(name)
    assert subject.other_limits == what_if(opened(name))
    assert subject.other_limits is not None
    text = html.page(subject).replace("\N{NO-BREAK SPACE}", " ")
    assert limit_outcomes.answer(subject.other_limits) in text
    for row in limit_outcomes.rows(subject.other_limits):
        assert all(f"<td>{cell}</td>" in text for cell in row)


def test_code_that_grew_is_drawn_for_kills_and_for_a_cgroup_that_lived(tmp_path: Path) -> None:
    """The second trace is the same recording without its kill."""
    subject = recorded("example")
    ((kill, drawn),) = subject.flames_of_kills.items()
    assert (kill, subject.flames_of_held) == (1, {})
    shares = {function: share for function, share, _ in drawn.functions}
    assert (shares["load_rows (app.py)"], shares["build_index (app.py)"]) == ("72 %", "28 %")
    lived = Path(shutil.copytree(TRACES / "example", tmp_path / "lived"))
    for table in ("oom", "oom_candidates", "kernel_log", "sigkills"):
        rows = pq.read_table(lived / f"{table}.parquet")
        pq.write_table(rows.slice(0, 0), lived / f"{table}.parquet")
    subject = subject_of(lived)
    (graph,) = subject.flames_of_held.values()
    assert subject.flames_of_kills == {}
    assert {"load_rows (app.py)", "build_index (app.py)"} <= {function for function, *_ in graph.functions}


def test_page_names_the_sender_of_a_sigkill_as_explain_does(tmp_path: Path) -> None:
    trace = Path(shutil.copytree(TRACES / "example", tmp_path / "trace"))
    (kill,) = reports_of("example")
    row = {"time": kill.time, "tgid": 70, "comm": "web", "way": "kill"}
    rows = [
        row | {"cgroup_id": cgroup_id, "sender_tgid": 90, "sender_comm": sender}
        for cgroup_id, sender in ((kill.limit_owner.cgroup_id, "guard"), (1, "other"))
    ]
    table = trace / "sigkills.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(table)), table)
    subject = subject_of(trace, kill.limit_owner.cgroup)
    assert subject.sigkills == AnalysedTrace(trace).sigkilled(kill.limit_owner.cgroup)
    page = html.page(subject).replace("\N{NO-BREAK SPACE}", " ")
    assert "SIGKILL of others ended 1 more process (guard 1): listed below." in page
    assert f"<li>{sigkill_words.sentence(subject.sigkills[0])}</li>" in page
    assert "other (pid 90)" in html.page(subject_of(trace)).replace("\N{NO-BREAK SPACE}", " ")
