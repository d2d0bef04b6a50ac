"""What lives show of their need beside their peaks: recorded examples, and made traces."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recorded import opened

from tracer.analysis.core.ledger import Steps
from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.summary.life_rows import greatest_and_mean
from tracer.fleet.summary.summarize import summarize


def steps(changes: dict[int, int], before: int | None) -> Steps:
    moments = sorted(changes)
    values = np.array([changes[moment] for moment in moments], dtype=np.int64)
    return Steps(np.array(moments, dtype=np.int64), values, before)


def test_each_interval_has_the_value_at_its_begin_and_all_changes_in_it() -> None:
    found = greatest_and_mean(steps({5: 30, 10: 0, 25: 7}, 10), [0, 10, 20, 30])
    assert found == [(30, 20), (0, 0), (7, 4)]


def test_value_before_the_first_known_one_is_left_out() -> None:
    found = greatest_and_mean(steps({15: 8, 18: 2}, None), [0, 10, 20, 30])
    assert found == [(None, None), (8, 6), (2, 2)]
    assert greatest_and_mean(steps({}, None), [0, 10]) == [(None, None)]
    assert greatest_and_mean(None, [0, 10, 20]) == [(None, None)] * 2


def test_change_at_the_last_edge_counts_for_the_last_interval() -> None:
    assert greatest_and_mean(steps({20: 9}, 1), [0, 10, 20]) == [(1, 1), (9, 1)]
    assert greatest_and_mean(steps({0: 9}, 1), [0, 0]) == [(9, 9)]


@given(
    st.dictionaries(st.integers(0, 60), st.integers(0, 1000)),
    st.none() | st.integers(0, 1000),
    st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True),
)
def test_intervals_have_the_greatest_value_and_the_mean_of_each_moment(
    changes: dict[int, int], before: int | None, edges: list[int]
) -> None:
    edges.sort()
    one = steps(changes, before)
    found = greatest_and_mean(one, edges)
    for position, (begin, end) in enumerate(pairwise(edges)):
        moments = [value for moment in range(begin, end) if (value := one.at(moment)) is not None]
        last = one.at(end) if position == len(edges) - 2 and end in changes else None
        greatest = max([*moments, *([] if last is None else [last])], default=None)
        assert found[position][0] == greatest
        if moments:
            mean = found[position][1]
            assert mean is not None
            assert abs(mean - sum(moments) / len(moments)) <= 0.5


MIB = 1 << 20
TRACES = Path(__file__).parents[3] / "traces"


def lives(path: Path) -> dict[str, dict[str, Any]]:
    return {row["cgroup"]: row for row in summarize(AnalysedTrace(path)).tables["lives"].to_pylist()}


@pytest.mark.parametrize(
    ("name", "state"), [("throttle", "throttled"), ("livelock", "thrashing"), ("thrash", "held")]
)
def test_state_is_that_of_explain_and_the_work_was_complete(name: str, state: str) -> None:
    (row,) = lives(TRACES / name).values()
    (one,) = opened(name).held_cgroups()
    assert (row["state"], row["work"]) == (state, "complete")
    assert row["state"] == one.progress.state
    assert row["lost_share"] == one.progress.lost_share
    assert row["peak_with_swap_bytes"] == row["peak_unreclaimable_bytes"]


def test_thrashing_life_is_comfortable_where_explain_says_it_reads_nothing_again() -> None:
    (row,) = lives(TRACES / "livelock").values()
    (one,) = opened("livelock").held_cgroups()
    assert one.sizing.min_limit_bytes is not None
    assert row["comfortable_bytes"] == one.sizing.min_limit_bytes[1] > row["limit_bytes"]


def test_page_cache_that_was_read_once_is_not_in_use() -> None:
    (row,) = lives(TRACES / "thrash").values()
    assert row["comfortable_bytes"] < row["peak_unreclaimable_bytes"] + 3 * MIB < row["peak_usage_bytes"]


def changed(folder: Path, name: str, **changes: Any) -> Path:
    """Return a copy of a recorded trace with changes of its meta.json; `...` removes a key."""
    copy = Path(shutil.copytree(TRACES / name, folder / name))
    meta = json.loads((copy / "meta.json").read_text())
    (copy / "meta.json").write_text(
        json.dumps({key: value for key, value in (meta | changes).items() if value is not ...})
    )
    return copy


@pytest.mark.parametrize(
    ("changes", "work"),
    [
        ({"command_status": 3}, "failed"),
        ({"command_status": -9}, "cut"),
        ({"end_reason": "duration", "command_status": ...}, "cut"),
        ({"ended": None, "end_reason": None, "command_status": ...}, "cut"),
        ({"filters": {}, "end_reason": "duration"}, None),
    ],
)
def test_work_is_how_the_recorded_command_ended(
    tmp_path: Path, changes: dict[str, Any], work: str | None
) -> None:
    (row,) = lives(changed(tmp_path, "thrash", **changes)).values()
    assert row["work"] == work


def test_work_of_a_cgroup_that_was_traced_by_name_is_growing_if_its_peak_is_late(tmp_path: Path) -> None:
    (row,) = lives(changed(tmp_path, "throttle", filters={}, end_reason="duration")).values()
    (one,) = AnalysedTrace(tmp_path / "throttle").held_cgroups()
    assert row["work"] is None  # it grew in the first third, and then waited
    assert "throttled" in one.quality.unknown["sizing.min_limit_bytes"]
    grown = lives(TRACES / "parent-limit")
    assert {path for path, life in grown.items() if life["work"] == "growing"} == {
        "/memcg-tracer-409-lab-parent-limit"
    }


def test_limit_that_takes_a_higher_memory_high_is_not_known_to_read_nothing_again() -> None:
    (row,) = lives(TRACES / "throttle").values()
    (one,) = opened("throttle").held_cgroups()
    assert one.high_events and one.sizing.min_limit_bytes is not None
    low, high = one.sizing.min_limit_bytes
    assert (row["killed_below_bytes"], row["reads_nothing_from_bytes"]) == (low, None) and high is not None
