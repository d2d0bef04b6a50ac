"""What lives show of their need beside their peaks: recorded examples, and made traces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.fleet.summary.summarize import summarize

MIB = 1 << 20
TRACES = Path(__file__).parents[3] / "traces"


def lives(path: Path) -> dict[str, dict[str, Any]]:
    return {row["cgroup"]: row for row in summarize(tracer.open(path)).tables["lives"].to_pylist()}


@pytest.mark.parametrize(
    ("name", "state"), [("throttle", "throttled"), ("livelock", "thrashing"), ("thrash", "held")]
)
def test_state_is_that_of_explain_and_the_work_was_complete(name: str, state: str) -> None:
    (row,) = lives(TRACES / name).values()
    (one,) = tracer.open(TRACES / name).held_cgroups()
    assert (row["state"], row["work"]) == (state, "complete")
    assert row["state"] == one.progress.state
    assert row["lost_share"] == one.progress.lost_share
    assert row["peak_with_swap_bytes"] == row["peak_unreclaimable_bytes"]


def test_thrashing_life_is_comfortable_where_explain_says_it_reads_nothing_again() -> None:
    (row,) = lives(TRACES / "livelock").values()
    (one,) = tracer.open(TRACES / "livelock").held_cgroups()
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
    (one,) = tracer.open(tmp_path / "throttle").held_cgroups()
    assert row["work"] is None  # it grew in the first third, and then waited
    assert "throttled" in one.quality.unknown["sizing.min_limit_bytes"]
    grown = lives(TRACES / "parent-limit")
    assert {path for path, life in grown.items() if life["work"] == "growing"} == {
        "/memcg-tracer-409-lab-parent-limit"
    }
