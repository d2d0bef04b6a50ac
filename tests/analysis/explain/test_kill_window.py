"""The two rows before a kill and at it: their numbers are those of the timeline and of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic.memcg_kill import LIMIT, record_kill

import tracer
from tracer.analysis.explain.kill_window import FLOWS, kill_window, kill_window_of
from tracer.analysis.explain.postmortem import explain
from tracer.errors import TracerError, UsageError

TRACES = Path(__file__).parents[3] / "traces"
KINDS = ("anon", "cache", "shmem", "slab", "kernel_stack", "page_tables", "kernel_other", "sock")
STOCK_BYTES = 64 * 4096


def moment(time_ns: int) -> str:
    return pd.Timestamp(time_ns, tz="UTC").isoformat()


def kinds_bytes(row: pd.Series) -> int:
    return sum(int(row[f"{kind}_bytes"]) for kind in KINDS)


@pytest.mark.parametrize("name", ["page-cache", "dirty", "shmem", "slab", "parent-limit"])
def test_rows_of_a_recorded_kill_add_up_to_usage_and_to_the_flows(name: str) -> None:
    trace = tracer.open(TRACES / name)
    (report,) = trace.explain()
    rows = trace.kill_window(report.kill_id)
    begin, kill = (row for _, row in rows.iterrows())
    assert rows.index[1] == report.time
    assert begin["usage_bytes"] < LIMIT / 2 < kill["usage_bytes"]
    assert kill["usage_bytes"] == report.composition.total == kinds_bytes(kill)
    assert kill["limit_bytes"] == report.limit_owner.limit_bytes
    assert kill["anon_bytes"] == report.memory_stat_bytes["anon"]
    # Beside what is counted, each CPU may hold a stock of charges.
    assert 0 <= begin["usage_bytes"] - kinds_bytes(begin) <= 2 * STOCK_BYTES
    flows = kill["cache_added_bytes"] - kill["cache_evicted_bytes"] - kill["cache_dropped_bytes"]
    change = kill["cache_bytes"] - begin["cache_bytes"]
    assert abs(change - flows) <= STOCK_BYTES
    assert name != "page-cache" or change == flows
    assert begin[list(FLOWS)].isna().all()


def test_flows_and_first_levels_are_those_of_the_timeline() -> None:
    trace = tracer.open(TRACES / "page-cache")
    rows = trace.kill_window(1)
    begin_ns, kill_ns = (time.value for time in rows.index)
    length = f"{kill_ns + 1 - begin_ns}ns"
    after = trace.timeline(every=length, begin=rows.index[0].isoformat(), end=moment(kill_ns + 1))
    assert [after[name].iloc[0] for name in FLOWS] == [rows[name].iloc[1] for name in FLOWS]
    before = trace.timeline(every="1ns", begin=moment(begin_ns - 1), end=moment(begin_ns))
    for kind in ("usage", *KINDS):
        assert rows[f"{kind}_bytes"].iloc[0] == before[f"{kind}_bytes"].iloc[0]
    assert rows["cache_evicted_bytes"].iloc[1] == trace.evictions()["evicted_bytes"].sum()


def test_level_that_is_unknown_at_the_kill_is_na_in_both_rows(page_cache_experiment: Any) -> None:
    page_cache_experiment.forget("samples")
    (report,) = explain(page_cache_experiment)
    rows = kill_window(page_cache_experiment, report)
    assert rows["file_dirty_bytes"].isna().all()
    assert rows["anon_bytes"].notna().all()


def test_kill_of_no_limit_and_kill_that_is_not_there_are_refused(page_cache_experiment: Any) -> None:
    with pytest.raises(UsageError, match="there is no kill 7 in this trace"):
        kill_window_of(page_cache_experiment, 7)
    record_kill(
        page_cache_experiment, 9, kill_id=2, constraint="global", limit_owner_cgroup_id=None, pid=51, tgid=51
    )
    with pytest.raises(TracerError, match="kill 2 was for no cgroup's limit"):
        kill_window_of(page_cache_experiment, 2)
