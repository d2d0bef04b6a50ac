"""The timeline against sums in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.bins import Bins, Grid, require_bounded
from tracer.analysis.views.timeline import COLUMNS, LEVELS, timeline
from tracer.enumerations import CATEGORY
from tracer.errors import TracerError, UsageError
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
PARENT, CHILD, STRANGER = 1, 2, 3


def test_timeline_of_the_page_cache_experiment_has_three_acts(page_cache_experiment: Any) -> None:
    line = timeline(page_cache_experiment, "web", every="100ms")
    assert tuple(line.columns) == COLUMNS
    assert line["cache_added_bytes"].sum() == 117 * MIB
    assert line["cache_evicted_bytes"].sum() == 116 * MIB
    assert line["cache_dropped_bytes"].sum() == 0
    assert line["oom_kills"].sum() == 1
    assert line["refault_bytes"].sum() == 5 * 4096
    assert line["cache_refaulted_bytes"].sum() == 0
    assert line["reclaim_attempts"].sum() == 119
    assert line["reclaimed_bytes"].sum() == 116 * MIB
    assert line["reclaim_stall_ms"].sum() == pytest.approx(116 + 6)
    # First act: cache only, up to the limit. Second: usage flat, cache makes room for anon. Third: the kill.
    filled = line.loc[line.index <= _at(1.3)].iloc[-1]
    assert (filled["usage_bytes"], filled["cache_bytes"], filled["anon_bytes"]) == (100 * MIB, 100 * MIB, 0)
    eaten = line.loc[(line.index > _at(1.4)) & (line.index < _at(3.5))]
    assert (eaten["usage_bytes"] == 100 * MIB).all()
    assert (eaten["cache_bytes"] + eaten["anon_bytes"] == 100 * MIB).all()
    assert eaten["cache_bytes"].iloc[-1] == MIB
    assert line["anon_bytes"].iloc[-1] == 0
    assert (line["limit_bytes"] == 100 * MIB).all()


def _at(seconds: float) -> pd.Timestamp:
    return pd.Timestamp(1_764_000_000_000_000_000 + round(seconds * 1e9), tz="UTC")


def test_timeline_has_its_index_and_dtypes(page_cache_experiment: Any) -> None:
    line = timeline(page_cache_experiment, 7)
    assert line.index.name == "time"
    assert isinstance(line.index, pd.DatetimeIndex)
    assert str(line.index.tz) == "UTC"
    assert line["anon_bytes"].dtype == pd.Int64Dtype()
    assert line["usage_bytes"].dtype == pd.Int64Dtype()
    assert line["cache_added_bytes"].dtype == np.int64
    assert line["reclaim_stall_ms"].dtype == np.float64
    assert line["cgroup"].dtype == "category" and set(line["cgroup"]) == {"/docker/4f2a"}
    assert line["container"].dtype == "category" and set(line["container"]) == {"web"}
    assert set(line["cgroup_id"]) == {7} and set(line["run"]) == {1}
    pd.testing.assert_frame_equal(timeline(page_cache_experiment), line)


def test_timeline_unknown_is_na_and_zero_is_zero(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/old")
    trace.add("cgroups", cgroup_id=CHILD, path="/new", created=trace.ns(0.25))
    trace.charged(0.0, PARENT, "anon", 4096)
    trace.charged(0.3, CHILD, "anon", 8192)
    trace.add("samples", 0.35, cgroup_id=PARENT, source="periodic", usage_bytes=5)
    old, new = timeline(trace, PARENT), timeline(trace, CHILD)
    # Without a start sample the level of an old cgroup is unknown; that of a new one is known from 0 on.
    assert old["anon_bytes"].isna().all()
    assert new["anon_bytes"].isna().tolist() == [True, True, False, False]
    assert new["anon_bytes"].dropna().tolist() == [0, 8192]
    assert old["usage_bytes"].isna().tolist() == [True, True, True, False]
    for column in ("limit_bytes", "file_dirty_bytes", "refault_bytes", "psi_some_us"):
        assert old[column].isna().all(), column
    assert (old["cache_added_bytes"] == 0).all()


def test_category_that_was_not_recorded_is_na_and_inside_the_rest_of_kernel_memory(trace: Any) -> None:
    trace.meta["unrecorded_categories"] = ["page_tables"]
    trace.add("cgroups", cgroup_id=CHILD, path="/new", created=trace.ns(0))
    trace.charged(0.0, CHILD, "kernel", 5 * MIB)
    trace.charged(0.0, CHILD, "slab_unreclaimable", 2 * MIB)
    row = timeline(trace, CHILD).iloc[0]
    assert row["page_tables_bytes"] is pd.NA
    assert (row["slab_bytes"], row["kernel_stack_bytes"], row["kernel_other_bytes"]) == (2 * MIB, 0, 3 * MIB)
    trace.meta["unrecorded_categories"] = ["kernel"]
    assert timeline(trace, CHILD).iloc[0]["kernel_other_bytes"] is pd.NA


def test_zswap_is_read_from_samples_and_na_before(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/old")
    for seconds, zswap in ((0.0, None), (0.1, 3 * MIB), (0.3, 2 * MIB)):
        trace.add("samples", seconds, cgroup_id=PARENT, source="periodic", zswap_bytes=zswap)
    assert timeline(trace, PARENT)["zswap_bytes"].tolist() == [pd.NA, 3 * MIB, 3 * MIB, 2 * MIB]


def test_memory_high_is_na_with_a_flag_if_it_is_not_set(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/old")
    for seconds, high in ((0.1, UNLIMITED_BYTES), (0.2, 28 << 20)):
        trace.add("samples", seconds, cgroup_id=PARENT, source="periodic", usage_bytes=5, high_bytes=high)
    trace.add("samples", 0, cgroup_id=PARENT, source="start", usage_bytes=5)
    line = timeline(trace, PARENT)
    assert line["high_bytes"].tolist() == [pd.NA, pd.NA, 28 << 20]
    assert line["is_high_limited"].tolist() == [pd.NA, False, True]


def test_counts_of_an_old_cgroup_start_from_its_first_reading(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/old")
    for seconds, refaults in ((0.0, 100), (0.1, 103), (0.2, 101), (0.3, 104)):
        trace.add("samples", seconds, cgroup_id=PARENT, source="periodic", workingset_refault_file=refaults)
    line = timeline(trace, PARENT)
    # The third reading lags behind the second: nothing is subtracted, nothing counted twice.
    assert line["refault_bytes"].tolist() == [0, 3 * 4096, 0, 4096]


def test_evictions_by_cause_and_by_kswapd_have_separate_columns(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/a")
    for cause, pages in (("reclaim_kswapd", 1), ("reclaim_direct", 2), ("truncate", 4), ("other", 8)):
        trace.add("pagecache", 0, cgroup_id=PARENT, op="delete", cause=cause, nr_pages=pages)
    trace.add("pagecache", 0, op="delete", cause="truncate", nr_pages=16)  # without an owner
    trace.add("reclaim", 0, kind="kswapd", cgroup_id=PARENT, duration_ns=10**6, reclaimed=3)
    row = timeline(trace, PARENT).iloc[0]
    assert row["cache_evicted_bytes"] == 3 * 4096
    assert row["cache_evicted_kswapd_bytes"] == 4096
    assert row["cache_evicted_direct_bytes"] == 2 * 4096
    assert row["cache_evicted_memcg_bytes"] == 0
    assert row["cache_dropped_bytes"] == 12 * 4096
    assert (row["reclaim_attempts"], row["reclaimed_bytes"], row["reclaim_stall_ms"]) == (1, 3 * 4096, 0)


def test_refaults_count_for_the_cgroup_charged_now(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=PARENT, path="/a")
    trace.add("cgroups", cgroup_id=CHILD, path="/a/b")
    trace.add("cgroups", cgroup_id=STRANGER, path="/c")
    trace.add("pagecache", 0, cgroup_id=CHILD, op="delete", cause="reclaim_memcg", nr_pages=7)
    trace.add("pagecache", 0.15, cgroup_id=CHILD, op="add", cause="read", nr_pages=3)
    trace.add("pagecache", 0.25, cgroup_id=STRANGER, op="add", cause="read", index=3, nr_pages=4)
    for path, pages in (("/a", [0, 3, 0]), ("/a/b", [0, 3, 0]), ("/c", [0, 0, 4])):
        assert timeline(trace, path)["cache_refaulted_bytes"].tolist() == [4096 * count for count in pages]


def test_refaults_are_not_known_where_events_were_summed(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=CHILD, path="/a")
    for seconds, op, cause in ((0, "delete", "reclaim_memcg"), (0.15, "add", "read"), (0.55, "add", "write")):
        trace.add("pagecache", seconds, cgroup_id=CHILD, op=op, cause=cause, nr_pages=3)
    trace.add("pagecache", 0.35, cgroup_id=CHILD, op="add", cause="read", index=None, nr_pages=5)
    trace.add("summed", 0.44, begin=trace.ns(0.32), stream="pagecache", reason="ring_full")
    line = timeline(trace, "/a")
    assert line["cache_refaulted_bytes"].tolist() == [0, 3 * 4096, 0, pd.NA, pd.NA, 0]
    assert line["cache_added_bytes"].tolist() == [0, 3 * 4096, 0, 5 * 4096, 0, 3 * 4096]


def test_wait_over_several_bins_counts_in_each(trace: Any) -> None:
    """Reclaim takes 251 ms from 70 ms on, for any target; from 95 to 113 ms it waits for writeback."""
    for number, path in ((PARENT, "/a"), (CHILD, "/a/b"), (STRANGER, "/c")):
        trace.add("cgroups", cgroup_id=number, path=path)
    trace.add("samples", 0, cgroup_id=PARENT, source="start")
    trace.add("samples", 0.35, cgroup_id=PARENT, source="end")
    waiting = {"cgroup_id": STRANGER, "task_cgroup_id": CHILD, "pid": 5}
    trace.add("reclaim", 0.07, kind="memcg", duration_ns=251_000_000, **waiting)
    trace.add("stalls", 0.095, kind="writeback", duration_ns=18_000_000, cgroup_id=CHILD, pid=5)
    trace.add("stalls", 0.3, kind="dirty", duration_ns=9_000_000, cgroup_id=PARENT, pid=6)
    trace.add("stalls", 0.39, kind="dirty", duration_ns=200_000_000, cgroup_id=PARENT, pid=6)
    trace.add("reclaim", 0.1, kind="kswapd", duration_ns=10**9, task_cgroup_id=PARENT, pid=7)
    parent, child, stranger = (timeline(trace, path) for path in ("/a", "/a/b", "/c"))
    for line in (parent, child):
        assert line["stalled_reclaim_ms"].tolist() == [30, 100, 100, 21]
        assert line["stalled_throttled_ms"].tolist() == [5, 13, 0, 0]
    assert parent["stalled_dirty_ms"].tolist() == [0, 0, 0, 19]
    assert child["stalled_dirty_ms"].tolist() == [0, 0, 0, 0]
    assert stranger["stalled_reclaim_ms"].tolist() == [0, 0, 0, 0]
    assert stranger["reclaim_stall_ms"].tolist() == [251, 0, 0, 0]
    for column in ("stalled_swap_in_ms", "stalled_high_ms"):
        assert parent[column].isna().all()
    later = timeline(trace, "/a", every="30ms", begin=0.16, end=0.2)
    assert later["stalled_reclaim_ms"].tolist() == [30, 30]
    trace.meta["probes"] = {"swap-in": {"hook": "fentry do_swap_page", "meaning": "exact"}}
    assert timeline(trace, "/a")["stalled_swap_in_ms"].tolist() == [0, 0, 0, 0]


def test_swap_io_counts_for_the_owner_when_it_is_queued(trace: Any) -> None:
    for number, path in ((PARENT, "/a"), (CHILD, "/a/b"), (STRANGER, "/c")):
        trace.add("cgroups", cgroup_id=number, path=path)
    trace.add("samples", 0, cgroup_id=PARENT, source="start")
    trace.add("samples", 0.35, cgroup_id=PARENT, source="end")
    by_stranger = {"task_cgroup_id": STRANGER, "tgid": 9}
    trace.add(
        "swap_io", 0.05, cgroup_id=CHILD, op="write", nr_pages=3, duration_ns=400_000_000, **by_stranger
    )
    trace.add("swap_io", 0.06, cgroup_id=PARENT, op="write", nr_pages=32, duration_ns=2_000_000)
    trace.add("swap_io", 0.07, cgroup_id=PARENT, op="write", nr_pages=1)
    trace.add("swap_io", 0.25, cgroup_id=PARENT, op="write", nr_pages=5)
    trace.add("swap_io", 0.15, cgroup_id=CHILD, op="read", nr_pages=8, duration_ns=500_000)
    parent, child, stranger = (timeline(trace, path) for path in ("/a", "/a/b", "/c"))
    assert parent["swap_written_bytes"].tolist() == [36 * 4096, 0, 5 * 4096, 0]
    assert parent["swap_write_mean_ms"].tolist() == pytest.approx([201, *[np.nan] * 3], nan_ok=True)
    assert child["swap_written_bytes"].tolist() == [3 * 4096, 0, 0, 0]
    assert child["swap_write_mean_ms"].iloc[0] == 400
    assert stranger["swap_written_bytes"].tolist() == [0, 0, 0, 0]
    assert parent["swap_read_bytes"].tolist() == [0, 8 * 4096, 0, 0]
    assert child["swap_read_mean_ms"].tolist() == pytest.approx([np.nan, 0.5, *[np.nan] * 2], nan_ok=True)
    trace.charged(0.2, PARENT, "swap", 4096)  # no probe recorded swap IO
    assert timeline(trace, "/a")["swap_written_bytes"].isna().all()
    trace.meta["probes"] = {"swap IO": {"hook": "raw_tracepoint block_bio_queue", "meaning": "exact"}}
    pd.testing.assert_series_equal(timeline(trace, "/a")["swap_written_bytes"], parent["swap_written_bytes"])


def test_range_beyond_the_trace_is_refused_with_its_duration(page_cache_experiment: Any) -> None:
    with pytest.raises(UsageError, match=r"within the trace, which lasts \d"):
        timeline(page_cache_experiment, begin="1000s")


def test_range_takes_seconds_and_iso_times(page_cache_experiment: Any) -> None:
    whole = timeline(page_cache_experiment, 7)
    start = whole.index[0]
    part = timeline(page_cache_experiment, 7, begin="500ms", end=1.5)
    pd.testing.assert_frame_equal(part, whole[(whole.index >= start + pd.Timedelta("500ms"))].iloc[:10])
    by_time = timeline(
        page_cache_experiment,
        7,
        begin=str(start + pd.Timedelta("500ms")),
        end=str(start + pd.Timedelta("1.5s")),
    )
    pd.testing.assert_frame_equal(part, by_time)


@pytest.mark.parametrize(
    "bad",
    [
        {"every": "0"},
        {"every": "-1s"},
        {"every": "soon"},
        {"every": "nan"},
        {"every": "1ns"},
        {"begin": "yesterday-ish"},
        {"begin": 2, "end": 1},
        {"begin": "inf"},
    ],
)
def test_times_that_make_no_sense_are_refused(page_cache_experiment: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refusal:
        timeline(page_cache_experiment, 7, **bad)
    assert "\n" not in str(refusal.value)


def test_rows_of_all_cgroups_together_are_bounded(trace: Any) -> None:
    """500 cgroups with 4 s in bins of 1 ms are the most rows; the length that is advised is accepted."""
    for number in range(1, 502):
        trace.add("cgroups", cgroup_id=number, path=f"/a{number}")
        trace.add("samples", 0, cgroup_id=number, source="periodic")
    trace.charged(3.9995, 1, "anon", 4096)
    with pytest.raises(UsageError) as refusal:
        timeline(trace, every="1ms")
    too_many = "4000 rows of 1ms for each of 501 cgroups are too many"
    assert str(refusal.value) == f"{too_many}: use every 2ms, or one of them"
    bins = Bins.cover(trace, "2ms", None, None)
    assert bins.count == 2000
    require_bounded(bins, "2ms", 501)  # raises no error; the rows themselves would take seconds
    assert len(timeline(trace, "/a1", every="1ms")) == 4000
    with pytest.raises(UsageError, match=r"are too many: use every 2us, or a shorter range \(begin, end"):
        timeline(trace, "/a1", every="1us")


def test_kills_outside_of_the_rows_are_not_looked_at(trace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of many kills has a chart for some of them, with the rows of one kill each."""
    trace.add("cgroups", cgroup_id=1, path="/a")
    for number in range(9):
        trace.add("samples", number, cgroup_id=1, source="periodic")
        trace.add("oom", number, kill_id=number, cgroup_id=1, limit_owner_cgroup_id=1)
    looked, shown_for = list[int](), Grid.shown_for

    def counted(grid: Grid, number: int) -> list[int]:
        looked.append(number)
        return shown_for(grid, number)

    monkeypatch.setattr(Grid, "shown_for", counted)
    part = timeline(trace, "/a", every="100ms", begin=4.9, end=5.1)
    assert part["oom_kills"].sum() == 1
    assert len(looked) == 2


def test_nested_and_reused_paths_count_once_for_each_cgroup_above(trace: Any) -> None:
    """A kill or a page counts once for each cgroup above it that had the path at that time."""
    paths = {1: "/", 2: "/a", 3: "/a/b", 4: "/a", 5: "/a/b/c", 6: "/ab"}
    for number, path in paths.items():
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0) if number == 4 else None)
        trace.add("pagecache", 0, cgroup_id=number, op="add", nr_pages=1 << number)
        trace.add("samples", 0, cgroup_id=number, source="periodic")
    trace.add("oom", 0, kill_id=1, cgroup_id=5, limit_owner_cgroup_id=2)
    trace.add("oom", 0, kill_id=2, cgroup_id=6)
    trace.add("pagecache", 0, cgroup_id=9, op="add", nr_pages=1 << 9)  # of unknown path
    line = timeline(trace)
    within = {1: (1, 2, 3, 4, 5, 6), 2: (2, 3, 5), 3: (3, 5), 4: (4,), 5: (5,), 6: (6,)}
    by_id = [1, 2, 4, 3, 5, 6]  # in the order of their paths
    added = [sum(1 << one for one in within[number]) * 4096 for number in by_id]
    assert line["cache_added_bytes"].tolist() == added
    assert line["oom_kills"].tolist() == [2, 1, 0, 1, 1, 1]
    for number in within:
        assert timeline(trace, number)["cache_added_bytes"].tolist() == [added[by_id.index(number)]]


def test_timeline_of_an_empty_trace_is_empty(trace: Any) -> None:
    assert timeline(trace).empty
    with pytest.raises(TracerError, match="it has no cgroups"):
        timeline(trace, "/a")


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2_000),  # milliseconds
        st.sampled_from([PARENT, CHILD, STRANGER]),
        st.sampled_from(CATEGORY.names),
        st.integers(-(2**40), 2**40),
    ),
    min_size=1,
    max_size=40,
)


@given(rows=ROWS, base=st.none() | st.integers(0, 2**40), every_ms=st.integers(1, 700))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_levels_of_any_charges_equal_running_sums(
    new_trace: Any, rows: list[Any], base: int | None, every_ms: int
) -> None:
    trace = new_trace()
    trace.add("cgroups", cgroup_id=PARENT, path="/p")
    trace.add("cgroups", cgroup_id=CHILD, path="/p/c")
    trace.add("cgroups", cgroup_id=STRANGER, path="/p2")
    if base is not None:
        start = {f"{category}_bytes": base + number for number, category in enumerate(CATEGORY.names)}
        trace.add("samples", 0, cgroup_id=PARENT, source="start", **start)
    for milliseconds, cgroup_id, category, amount in rows:
        trace.charged(milliseconds / 1000, cgroup_id, category, amount)

    line = timeline(trace, "/p", every=f"{every_ms}ms")
    ends_ms = every_ms * np.arange(1, len(line) + 1)
    for column, weights in LEVELS.items():
        if base is None:
            assert line[column].isna().all()
            continue
        at_start = sum(
            weight * (base + CATEGORY.names.index(category)) for category, weight in weights.items()
        )
        expected = np.full(len(line), at_start)
        for milliseconds, cgroup_id, category, amount in rows:
            if cgroup_id != STRANGER:
                expected[ends_ms > milliseconds] += weights.get(category, 0) * amount
        assert line[column].tolist() == expected.tolist(), column
