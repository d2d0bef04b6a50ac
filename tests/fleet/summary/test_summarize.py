"""The summary of each recorded example, and of restart loops that last minutes, compared with what the
analyses say of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from support.recorded import NAMES as RECORDED
from support.recorded import TRACES, reports_of
from support.recorded import opened as example
from synthetic.restarts import Restarts

from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain import kill_filter
from tracer.analysis.explain.sizing.read_again import Rereads
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import CodeFrame, GrownCode, GrownProcess
from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.analysis.results.survivor import Progress
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.evictions import evictions
from tracer.analysis.views.timeline import timeline
from tracer.analysis.whatif.outcomes import what_if
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import BIN_NS, COMPOSITION_COLUMNS, SUMMARIES, SUMMARY_VERSION
from tracer.fleet.summary.summarize import (
    Summary,
    kill_rows,
    sigkill_rows,
    summarize,
    unreclaimable_bytes,
)
from tracer.fleet.summary.workload import NamedCgroups
from tracer.schema import UNLIMITED_BYTES

MADE = {
    "restarts of a container": Restarts(6, 6, gap_ns=40_000_000_000, container="web-1"),
    "kills for a parent": Restarts(4, 2, "parent", gap_ns=50_000_000_000),
    "lives without kills": Restarts(4, 4, None, gap_ns=45_000_000_000),
}
NAMES = [*RECORDED, *MADE]
FOLDER = TemporaryDirectory()  # removed when Python ends


@cache
def opened(name: str) -> AnalysedTrace:
    if name in MADE:
        return AnalysedTrace(MADE[name].write(Path(FOLDER.name) / name))
    return example(name)


@cache
def summary(name: str) -> Summary:
    return summarize(opened(name))


@cache
def rows(name: str, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = summary(name).tables[table].to_pylist()
    return found


@cache
def reports(name: str) -> tuple[OomReport, ...]:
    return tuple(opened(name).explain() if name in MADE else reports_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_source_has_the_trace_and_its_machine(name: str) -> None:
    trace = opened(name)
    (row,) = rows(name, "sources")
    assert (row["trace"], row["host"], row["boot_id"]) == (
        name,
        trace.meta["host_name"],
        trace.meta["boot_id"],
    )
    assert row["time"].isoformat() == trace.meta["started"]
    assert row["end"].isoformat() == trace.meta["ended"]
    assert row["kills"] == len(reports(name))
    assert row["lost_records"] == sum((trace.meta["lost"] or {}).values())
    assert row["bytes_on_disk"] == trace.size_bytes
    assert re.fullmatch("[0-9a-f]{16}", row["trace_id"])


def test_trace_id_tells_recordings_apart_and_not_their_places(tmp_path: Path) -> None:
    ids = {name: rows(name, "sources")[0]["trace_id"] for name in RECORDED}
    assert len({*ids.values()}) == len(RECORDED)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (TRACES / "fork").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    (row,) = summarize(AnalysedTrace(moved)).tables["sources"].to_pylist()
    assert (row["trace"], row["trace_id"]) == ("elsewhere", ids["fork"])


@pytest.mark.parametrize("name", NAMES)
def test_kills_are_those_of_explain(name: str) -> None:
    for row, report in zip(rows(name, "kills"), reports(name), strict=True):
        owner, made_of = report.limit_owner, report.composition
        assert row["time"] == report.time
        assert (row["ktime_ns"], row["kill_id"]) == (report.ktime_ns, report.kill_id)
        assert (row["cause"], row["confidence"]) == (report.verdict.cause, report.verdict.confidence)
        assert row["summary"] == report.verdict.summary
        assert (row["cgroup"], row["cgroup_id"]) == (owner.cgroup, owner.cgroup_id)
        assert (row["limit_bytes"], row["is_limited"]) == (owner.limit_bytes, True)
        assert row["usage_bytes"] == owner.usage_bytes == made_of.total
        assert row["working_set_bytes"] == report.working_set_bytes
        assert (row["victim_pid"], row["victims"]) == (report.victims[0].pid, len(report.victims))
        assert row["victim_cgroup"] == report.victims[0].cgroup
        assert row["evicted_bytes"] == report.cushion.evicted_bytes
        assert row["stall_ms"] == report.reclaim.stall_ms
        sized = report.sizing.min_limit_bytes or (None, None)
        assert (row["min_limit_low_bytes"], row["min_limit_high_bytes"]) == sized
        parts = [row[column] for column in COMPOSITION_COLUMNS]
        assert parts == [amount for _, amount in made_of.parts()]
        assert sum(part or 0 for part in parts) == row["usage_bytes"]
        cache_bytes = sum(getattr(made_of, part) or 0 for part in ("file_clean", "file_dirty", "writeback"))
        assert row["unreclaimable_bytes"] == (
            (made_of.total or 0) - cache_bytes - (made_of.slab_reclaimable or 0)
        )


@pytest.mark.parametrize("name", NAMES)
def test_lives_are_those_of_held_cgroups(name: str) -> None:
    trace = opened(name)
    held = {one.cgroup_id: one for one in trace.held_cgroups()}
    assert rows(name, "lives")
    for row in rows(name, "lives"):
        one = held[row["cgroup_id"]]
        assert row["cgroup"] == one.cgroup
        assert row["peak_usage_bytes"] == one.peak_usage_bytes
        assert row["is_limited"] == (one.headroom_bytes is not None)
        assert row["limit_bytes"] == (one.limit_bytes if row["is_limited"] else None)
        assert (row["evicted_bytes"], row["refaulted_bytes"]) == (one.evicted_bytes, one.refaulted_bytes)
        assert row["kills"] == sum(report.limit_owner.cgroup_id == one.cgroup_id for report in reports(name))
        assert row["observed_s"] == pytest.approx((row["end"] - row["time"]).total_seconds())
        replayed = what_if(trace, (), row["cgroup_id"])
        assert row["killed_below_bytes"] == replayed.killed_below_bytes
        assert row["survives_from_bytes"] == replayed.survives_from_bytes
        if one.sizing.min_limit_bytes is not None:
            ends = row["killed_below_bytes"], row["reads_nothing_from_bytes"]
            low, high = one.sizing.min_limit_bytes
            assert ends == (low, None if one.high_events else high)
            assert ends[0] <= row["peak_unreclaimable_bytes"]


def test_what_killed_lives_read_again_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That would take a third of the time of a crash loop."""
    looked, of = list[int](), Rereads.of

    def counted(subtree: Subtree, going: Progress) -> Rereads:
        looked.append(subtree.cgroup_id)
        return of(subtree, going)

    monkeypatch.setattr(Rereads, "of", counted)
    for name in ("restarts of a container", "lives without kills"):
        found = summarize(opened(name)).tables["lives"].to_pylist()
        assert found
        assert {row["cgroup_id"] for row in found if row["kills"]}.isdisjoint(looked)
    assert looked


@pytest.mark.parametrize("name", NAMES)
def test_peaks_of_a_life_are_no_less_than_what_was_read_at_its_kills(name: str) -> None:
    lives = {row["cgroup_id"]: row for row in rows(name, "lives")}
    for kill in rows(name, "kills"):
        life = lives[kill["cgroup_id"]]
        for size in ("usage_bytes", "unreclaimable_bytes", "working_set_bytes"):
            assert kill[size] <= life[f"peak_{size}"]
            assert name in MADE or life[f"peak_{size}"] <= kill["limit_bytes"] + (1 << 20)


@pytest.mark.parametrize("name", NAMES)
def test_evictors_add_up_to_evictions_by_cgroup(name: str) -> None:
    by_cgroup = evictions(opened(name), by="cgroup")
    expected = by_cgroup[by_cgroup["evicted_bytes"] > 0]
    pairs = expected.groupby(["cgroup_id", "task_cgroup_id"], dropna=False)[
        ["evicted_bytes", "returned_bytes"]
    ].sum()
    found: dict[tuple[Any, Any], tuple[int, int]] = {}
    for row in rows(name, "evictors"):
        key = row["owner_cgroup_id"], row["evictor_cgroup_id"]
        evicted, refaulted = found.get(key, (0, 0))
        found[key] = evicted + row["evicted_bytes"], refaulted + row["refaulted_bytes"]
    keys = [(None if pd.isna(owner) else owner, actor) for owner, actor in pairs.index]
    assert found == dict(zip(keys, pairs.itertuples(index=False, name=None), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_minutes_of_a_life_add_up_to_the_life(name: str) -> None:
    for life in rows(name, "lives"):
        minutes = [row for row in rows(name, "timeline") if row["cgroup_id"] == life["cgroup_id"]]
        for column in ("evicted_bytes", "refaulted_bytes"):
            assert sum(row[column] for row in minutes) == life[column]
        assert [row["ktime_ns"] % BIN_NS for row in minutes] == [0] * len(minutes)
        assert minutes[0]["first_ktime_ns"] == life["first_ktime_ns"]
        assert minutes[-1]["last_ktime_ns"] == life["last_ktime_ns"]
        for size in ("usage_bytes", "unreclaimable_bytes"):
            most = [row[f"max_{size}"] for row in minutes if row[f"max_{size}"] is not None]
            peak = life[f"peak_{size}"]
            if size == "usage_bytes":  # the peak between two readings is in no minute
                assert max(most, default=0) <= (peak or 0) + (1 << 20)
            else:
                assert max(most, default=None) == peak or life["is_end_seen"]
            means = [(row[f"mean_{size}"], row[f"max_{size}"]) for row in minutes]
            assert all(most is None or mean <= most for mean, most in means)


@pytest.mark.parametrize("name", NAMES)
def test_evicted_bytes_are_those_of_the_timeline(name: str) -> None:
    every_minute = timeline(opened(name), every="60s")
    expected = every_minute.groupby("cgroup_id")["cache_evicted_bytes"].sum().to_dict()
    found: dict[int, int] = {}
    for row in rows(name, "timeline"):
        found[row["cgroup_id"]] = found.get(row["cgroup_id"], 0) + row["evicted_bytes"]
    assert found == {cgroup_id: expected[cgroup_id] for cgroup_id in found}


@pytest.mark.parametrize("table", SUMMARIES)
def test_rows_say_where_they_are_from(table: str) -> None:
    (source,) = rows("page-cache", "sources")
    for row in rows("page-cache", table):
        assert row["date"] == row["time"].date()
        assert row["summary_version"] == SUMMARY_VERSION
        for column in ("host", "boot_id", "trace", "trace_id"):
            assert row[column] == source[column]


TRACE = AnalysedTrace(Path(__file__).parents[3] / "traces/parent-limit")
(REPORT,) = TRACE.explain()
STARTS: dict[tuple[int, int | None], int] = {(REPORT.kill_id, REPORT.victims[0].pid): 41}


def row_of(report: OomReport) -> dict[str, Any]:
    (row,) = kill_rows([report], Origin.from_trace(TRACE), NamedCgroups(TRACE), STARTS)
    return row


def test_kill_without_a_limit_is_of_the_workload_of_its_victim() -> None:
    owner = replace(REPORT.limit_owner, cgroup=None, cgroup_id=None, limit_bytes=None, usage_bytes=None)
    row = row_of(replace(REPORT, constraint="global", limit_owner=owner))
    assert row["workload"] == row["victim_workload"] == "/memcg-tracer-*-lab-parent-limit/big"
    assert row_of(REPORT)["workload"] == "/memcg-tracer-*-lab-parent-limit"
    assert (row["cgroup"], row["cgroup_id"], row["limit_bytes"], row["is_limited"]) == (None,) * 4
    assert row["victim_start_ns"] == 41


def test_kill_has_the_function_with_the_largest_share_unless_it_has_no_name() -> None:
    def grown(*frames: CodeFrame) -> list[Any]:
        code = GrownCode(0.7, 0.06, 7 << 20, "anon", GrownProcess(41, "work", 1), "python", None, frames)
        row = row_of(replace(REPORT, code=(code, replace(code, share=0.3, frames=(main,)))))
        return [row.get(f"grown_{name}") for name in ("function", "file", "line", "module", "share")]

    main = CodeFrame("main", "app.py", 88, None)
    assert grown(CodeFrame("load", "app.py", 41, None), main) == ["load", "app.py", 41, None, 0.7]
    assert grown(CodeFrame("grow", None, None, "work")) == ["grow", None, None, "work", 0.7]
    for nameless in ("[python]", "[code]"):
        assert grown(CodeFrame(nameless, None, None, None), main) == [None] * 5
    assert grown() == [None] * 5
    assert row_of(replace(REPORT, code=())).get("grown_function") is None


def test_limit_that_is_not_set_is_null_and_said() -> None:
    row = row_of(replace(REPORT, limit_owner=replace(REPORT.limit_owner, limit_bytes=UNLIMITED_BYTES)))
    assert (row["limit_bytes"], row["is_limited"]) == (None, False)


def test_kill_without_victims_and_time_known_from_the_log() -> None:
    row = row_of(replace(REPORT, victims=(), ktime_ns=None))
    assert (row["victims"], row["victim_pid"], row["victim_workload"], row["ktime_ns"]) == (
        0,
        None,
        "?",
        None,
    )
    assert kill_rows([replace(REPORT, time=None)], Origin.from_trace(TRACE), NamedCgroups(TRACE), {}) == []


def test_unreclaimable_memory_is_null_unless_each_part_of_it_is_known() -> None:
    made_of = replace(REPORT.composition, total=100, file_clean=10, file_dirty=5, writeback=None)
    made_of = replace(made_of, slab_reclaimable=2)
    assert unreclaimable_bytes(made_of) == 83
    for part in ("total", "file_clean", "slab_reclaimable"):
        unknown: dict[str, Any] = {part: None}
        assert unreclaimable_bytes(replace(made_of, **unknown)) is None


def test_other_sigkill_has_the_workloads_of_both_ends() -> None:
    cgroup_id = REPORT.limit_owner.cgroup_id
    target, sender = Party(7, "web", cgroup_id=cgroup_id), Party(9, "runc", cgroup_id=1 << 40)
    parents = (Party(4, "containerd-shim"), Party(1, "systemd"))
    stop = Sigkill(REPORT.time, target, sender, parents, "pidfd", 10.0, 30, 40, 0.5, 41)
    by_kernel = replace(stop, sender=None, parents=(), since_sigterm_s=None, limit_bytes=None)
    row, other = sigkill_rows([stop, by_kernel], Origin.from_trace(TRACE), NamedCgroups(TRACE))
    assert row["ktime_ns"] == REPORT.ktime_ns
    assert row["workload"] == "/memcg-tracer-*-lab-parent-limit"
    assert (row["sender_workload"], row["sender_cgroup"]) == ("?", f"id:{1 << 40}")
    assert (row["comm"], row["pid"], row["start_ns"], row["way"]) == ("web", 7, 41, "pidfd")
    assert (row["sender_comm"], row["sender_pid"], row["parent_comm"]) == ("runc", 9, "containerd-shim")
    assert (row["since_sigterm_s"], row["usage_bytes"], row["psi_some_share"]) == (10, 30, 0.5)
    assert (row["limit_bytes"], row["is_limited"]) == (40, True)
    unknown = ("sender_comm", "sender_pid", "sender_workload", "sender_cgroup_id", "parent_comm")
    assert [other[name] for name in unknown] == [None] * len(unknown)
    assert (other["limit_bytes"], other["is_limited"]) == (None, False)
    assert {*row} == {*other} == {*SUMMARIES["sigkills"].names}


def test_trace_that_does_not_know_sigkills_has_no_count_of_them() -> None:
    (source,) = rows("fork", "sources")
    assert not opened("fork").has_table("sigkills")
    assert source["sigkills"] is None
    (made,) = rows("lives without kills", "sources")
    assert made["sigkills"] == (0 if opened("lives without kills").has_table("sigkills") else None)


def test_lives_look_at_each_kill_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other kills of a life are found by its cgroup: to pass over all kills for each life would take as
    long as the square of their number."""
    looks, places = list[int](), kill_filter._places

    def counted(report: OomReport) -> Iterable[tuple[int | None, str | None]]:
        looks.append(report.kill_id)
        return places(report)

    monkeypatch.setattr(kill_filter, "_places", counted)
    made = summarize(AnalysedTrace(Restarts(5, 5, charges=12, folios=8).write(tmp_path / "trace")))
    assert made.tables["lives"].column("kills").to_pylist() == [0, *[1] * 5]
    assert looks == [1, 2, 3, 4, 5]
