"""One kill explained, out of many: the same report as among all, for the work of one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES, opened, reports_of
from synthetic.restarts import Restarts

from tracer.analysis.explain import kill_report, outline, postmortem, recorded_facts, victim_selection
from tracer.analysis.explain.kill_report import Kill
from tracer.analysis.explain.measure import allocators, shared_memory
from tracer.analysis.explain.postmortem import PostMortems
from tracer.analysis.kernel_log import comparison, logged_reports
from tracer.analysis.results.kill import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views import reclaim
from tracer.analysis.whatif.outcomes import what_if
from tracer.kernel.kmsg import parser
from tracer.kernel.kmsg.report.log_report import LogReport

KILLS: Final = 5


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    restarts = Restarts(KILLS, cgroups=2, charges=12, folios=8)
    return restarts.write(tmp_path_factory.mktemp("loop") / "trace")


def parties(report: OomReport) -> tuple[object, ...]:
    owner, victims = report.limit_owner, report.victims
    return report.kill_id, report.time, owner.cgroup, owner.cgroup_id, owner.limit_bytes, victims


def test_one_kill_has_the_report_that_it_has_among_all(loop: Path) -> None:
    every = AnalysedTrace(loop).explain()
    assert [report.kill_id for report in every] == list(range(1, KILLS + 1))
    for report in every:
        assert PostMortems(AnalysedTrace(loop)).one(report.kill_id) == report


def test_outlines_have_the_parties_of_the_reports(loop: Path) -> None:
    trace = AnalysedTrace(loop)
    assert [*map(parties, PostMortems(trace).outlines())] == [*map(parties, trace.explain())]


def test_measured_kills_have_the_parties_and_the_memory_of_the_reports(loop: Path) -> None:
    trace = AnalysedTrace(loop)
    for measured, report in zip(PostMortems(trace).measured(), trace.explain(), strict=True):
        assert parties(measured) == parties(report)
        assert measured.composition == report.composition
        assert measured.cushion == replace(report.cushion, refaulted_bytes=None)
        assert measured.memory_stat_bytes == report.memory_stat_bytes
        assert "composition" not in measured.quality.unknown
        for name in ("verdict", "cushion.refaulted_bytes"):
            assert measured.quality.unknown[name] == "it was not asked for"


def test_listed_and_sized_kills_have_reasons_for_what_is_not_explained(loop: Path) -> None:
    post_mortems, name = PostMortems(AnalysedTrace(loop)), "sizing.min_limit_bytes"
    reasons = dict.fromkeys(outline.NOT_EXPLAINED, "it was not asked for")
    assert [report.quality.unknown for report in post_mortems.listed()] == [reasons] * KILLS
    sized, whole = post_mortems.sized(1), post_mortems.one(1)
    assert sized.quality.unknown == reasons | {name: whole.quality.unknown[name]}


def test_measured_kills_sort_no_refaults(loop: Path) -> None:
    trace = AnalysedTrace(loop)
    assert PostMortems(trace).measured()
    assert "refaulted" not in vars(trace)


def test_only_the_chosen_kill_is_explained(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = list[int]()
    whole = kill_report.whole

    def counted(kill: Kill) -> OomReport:
        explained.append(kill.outline.kill_id)
        return whole(kill)

    monkeypatch.setitem(recorded_facts.DEPTHS, "all", counted)
    outlines, post_mortems = AnalysedTrace(loop).outlined()
    assert not explained
    post_mortems.one(outlines[-1].kill_id)
    assert explained == [KILLS]


def test_one_kill_parses_the_reports_for_its_own_limit_and_no_other(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, whole = list[int](), parser.reports
    found, memory = list[int](), logged_reports._memory

    def counted(lines: Iterable[str], first: int, *further: Any) -> Iterator[LogReport]:
        parsed.append(first)
        return whole(lines, first, *further)

    def read(rows: Any, *of_memory: int) -> Any:
        found.append(of_memory[0] // (rows.count // KILLS) + 1)
        return memory(rows, *of_memory)

    monkeypatch.setattr(parser, "reports", counted)
    monkeypatch.setattr(logged_reports, "_memory", read)
    outlines, post_mortems = AnalysedTrace(loop).outlined()
    assert [report.quality.kmsg for report in outlines] == ["matched"] * KILLS
    assert not parsed
    assert not found
    post_mortems.one(KILLS)
    rows = len(AnalysedTrace(loop).kernel_log) // KILLS
    assert parsed == [4 * rows + 1]
    assert sorted(found) == [1, 3, 5]
    post_mortems.one(2)
    assert parsed == [4 * rows + 1, rows + 1]  # kill 4 has the limit of kill 2, and needs only a range
    assert sorted(found) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("has_stacks", [True, False])
def test_list_of_kills_parses_no_usual_report(
    loop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_stacks: bool
) -> None:
    if not has_stacks:
        loop = Path(shutil.copytree(loop, tmp_path / "without"))
        pq.write_table(pq.read_table(loop / "stacks.parquet")[:0], loop / "stacks.parquet")
    expected = AnalysedTrace(loop).explain()
    monkeypatch.setattr(parser, "reports", None)
    trace = AnalysedTrace(loop)
    require_causes_and_memory_of_the_whole_reports(trace, expected)
    require_rows_of_the_whole_reports(AnalysedTrace(loop), expected)
    assert not trace.defects


def require_rows_of_the_whole_reports(trace: AnalysedTrace, expected: Sequence[OomReport]) -> None:
    for made, report in zip(trace.summarized(), expected, strict=True):
        assert parties(made) == parties(report)
        for name in ("trigger", "composition", "working_set_bytes", "cushion", "sizing", "grown"):
            assert getattr(made, name) == getattr(report, name), name
        assert [getattr(made.verdict, name) for name in ("cause", "confidence", "summary")] == [
            getattr(report.verdict, name) for name in ("cause", "confidence", "summary")
        ]
        assert (made.reclaim.attempts, made.reclaim.stall_ms) == (
            report.reclaim.attempts,
            report.reclaim.stall_ms,
        )
        for name in ("lost_records", "kmsg"):
            assert getattr(made.quality, name) == getattr(report.quality, name), name
        assert made.quality.unknown.get("sizing.min_limit_bytes") == report.quality.unknown.get(
            "sizing.min_limit_bytes"
        )
        assert not made.verdict.evidence
        assert not made.advice


@pytest.mark.parametrize("name", NAMES)
def test_summarized_kills_of_the_examples_have_what_rows_show_of_the_whole_reports(name: str) -> None:
    require_rows_of_the_whole_reports(opened(name), reports_of(name))


def test_other_kills_for_one_limit_are_sized_and_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    every = AnalysedTrace(TRACES / "sharedbuffers").explain()
    explained, whole = list[int](), kill_report.whole

    def counted(kill: Kill) -> OomReport:
        explained.append(kill.outline.kill_id)
        return whole(kill)

    monkeypatch.setitem(recorded_facts.DEPTHS, "all", counted)
    assert PostMortems(AnalysedTrace(TRACES / "sharedbuffers")).one(3) == every[2]
    assert explained == [3]
    assert what_if(AnalysedTrace(TRACES / "sharedbuffers")).killed_below_bytes is not None
    assert explained == [3]


@pytest.mark.parametrize("name", NAMES)
def test_sized_kills_of_the_examples_have_the_own_range_of_the_whole_reports(name: str) -> None:
    trace, name_of_range = opened(name), "sizing.min_limit_bytes"
    sized, whole = PostMortems(trace), PostMortems(trace)
    for kill_id, find in whole._kills:
        report = whole._explained(kill_id, find, postmortem._to("all"), whole._completed.told)
        one = sized.sized(kill_id)
        assert (one.time, one.limit_owner, one.sizing) == (report.time, report.limit_owner, report.sizing)
        assert one.quality.unknown.get(name_of_range) == report.quality.unknown.get(name_of_range)


def test_kills_that_are_asked_for_one_by_one_share_a_subtree(loop: Path) -> None:
    kills = PostMortems(AnalysedTrace(loop))._kills
    assert kills.kill_at(1).subtree is kills.kill_at(3).subtree
    assert kills.kill_at(2).subtree is not kills.kill_at(3).subtree


def test_the_kernel_log_is_merged_with_as_many_writes_for_many_kills_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write into a DataFrame copies or checks a column: one for each kill would make the cost of all kills
    grow with its square."""
    written = list[int]()
    whole = comparison._with_cells

    def counted(table: pd.DataFrame, cells: dict[str, dict[int, Any]]) -> pd.DataFrame:
        written.extend(len(value_of) for value_of in cells.values())
        return whole(table, cells)

    monkeypatch.setattr(comparison, "_with_cells", counted)
    writes = dict[int, list[int]]()
    for kills in (2, 2 * KILLS):
        written.clear()
        PostMortems(
            AnalysedTrace(Restarts(kills, 2, charges=12, folios=8).write(tmp_path / f"{kills}"))
        ).outlines()
        writes[kills] = list(written)
    assert writes[2]
    assert [KILLS * rows for rows in writes[2]] == writes[2 * KILLS]


def test_outlines_of_kills_take_no_row_out_of_a_table_of_pandas(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_mortems = PostMortems(AnalysedTrace(loop))
    expected = [*map(parties, post_mortems.outlines())]
    monkeypatch.setattr(pd.DataFrame, "iloc", None)
    monkeypatch.setattr(pd.DataFrame, "loc", None)
    assert [*map(parties, post_mortems.outlines())] == expected
    assert len(expected) == KILLS


def listed(report: OomReport) -> tuple[object, ...]:
    """Return what a list shows of a kill (`render.words.kill_list`)."""
    verdict = report.verdict
    owner = report.limit_owner
    names = owner.container, owner.pod, owner.run, owner.runs, report.constraint
    return *parties(report), owner, *names, verdict.cause, verdict.confidence


def judged(report: OomReport) -> tuple[object, ...]:
    """Return what a list and a chart show of a kill."""
    memory = report.composition, report.cushion, report.working_set_bytes, report.memory_stat_bytes
    return *listed(report), *memory


def require_causes_and_memory_of_the_whole_reports(
    trace: AnalysedTrace, reports: Sequence[OomReport]
) -> None:
    assert [*map(listed, trace.listed()[0])] == [*map(listed, reports)]
    assert [*map(judged, PostMortems(trace).judged())] == [*map(judged, reports)]


@pytest.mark.parametrize("name", NAMES)
def test_listed_and_judged_kills_of_the_examples_have_cause_and_memory_of_the_whole_reports(
    name: str,
) -> None:
    require_causes_and_memory_of_the_whole_reports(opened(name), reports_of(name))


def test_listed_and_judged_kills_of_a_loop_have_cause_and_memory_of_the_whole_reports(loop: Path) -> None:
    trace = AnalysedTrace(loop)
    require_causes_and_memory_of_the_whole_reports(trace, trace.explain())


def test_judged_kills_read_no_table_that_only_evidence_reads(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "attempts", None)
    monkeypatch.setattr(allocators, "between", None)
    monkeypatch.setattr(victim_selection, "from_trace", None)
    monkeypatch.setattr(shared_memory, "files_at", None)
    trace = AnalysedTrace(loop)
    assert len(trace.listed()[0]) == len(PostMortems(trace).judged()) == KILLS
    assert not trace.defects
