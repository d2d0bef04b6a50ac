from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from tracer.analysis.results.kill import OomReport
from tracer.render.picture.markers import kill_markers, limit_markers, read_again_markers


def test_kill_marks_its_cgroup_and_the_ancestors(
    timeline: pd.DataFrame, new_report: Callable[..., OomReport]
) -> None:
    reports = [new_report(cgroup="/docker/web")]
    assert [marker.is_kill for marker in kill_markers(reports, "/docker/web", timeline)] == [False, True]
    assert [marker.is_kill for marker in kill_markers(reports, "/docker", timeline)] == [True]
    assert [marker.is_kill for marker in kill_markers(reports, "/", timeline)] == [True]
    assert kill_markers(reports, "/docker/we", timeline) == []
    assert kill_markers(reports, "/docker/web/child", timeline) == []


def test_markers_outside_of_the_time_shown_are_left_out(timeline: pd.DataFrame, report: OomReport) -> None:
    assert kill_markers([report], "/memcg-tracer-77-page-cache", timeline.iloc[:30]) == []


def test_many_kills_have_a_marker_for_each_part_of_the_time(
    timeline: pd.DataFrame, new_report: Callable[..., OomReport]
) -> None:
    """Kills after the time shown are not counted."""
    span = timeline.index[-1] + (timeline.index[1] - timeline.index[0]) - timeline.index[0]

    def kills(count: int) -> list[OomReport]:
        """Return `count` kills within the time shown, and one after it."""
        moments = [timeline.index[0] + span * number / count for number in range(count + 1)]
        return [replace(new_report(cgroup="/a"), time=moment) for moment in moments]

    assert [marker.text.count("more") for marker in kill_markers(kills(20), "/", timeline)] == [0] * 20
    many = kill_markers(kills(50), "/", timeline)
    assert len(many) == 20
    assert sum(int(marker.text.split()[-4]) + 1 for marker in many if "more" in marker.text) == 50


def intervals(origin: pd.Timestamp, *rows: tuple[float, float, int]) -> pd.DataFrame:
    """Return intervals from rows of (begin in s, end in s, MiB evicted); half of it was refaulted."""
    return pd.DataFrame(
        {
            "begin": [origin + pd.Timedelta(begin, "s") for begin, _, _ in rows],
            "end": [origin + pd.Timedelta(end, "s") for _, end, _ in rows],
            "evicted_bytes": [mib << 20 for *_, mib in rows],
            "refaulted_bytes": [mib << 19 for *_, mib in rows],
        }
    )


def test_cache_read_again_soon_is_clipped_to_the_time_shown(
    timeline: pd.DataFrame, origin: pd.Timestamp
) -> None:
    shown = timeline.iloc[10:20]  # 1 s to 2 s
    found = intervals(origin, (0.2, 0.9, 10), (0.5, 1.25, 30), (1.5, 2.5, 20), (2.0, 2.1, 50))
    first, second = read_again_markers(found, shown)
    assert first.text == "cache read again soon for 750 ms: 30 MiB evicted, 15 MiB of it read again"
    assert (first.time, first.until) == (shown.index[0], found["end"][1])
    assert (second.time, second.until) == (found["begin"][2], origin + pd.Timedelta("2s"))
    (alone,) = read_again_markers(found, shown.iloc[:1])  # a row that lasts 100 ms
    assert (alone.time, alone.until) == (shown.index[0], origin + pd.Timedelta("1.1s"))
    assert read_again_markers(found.iloc[:0], shown) == []


def test_worst_of_many_intervals_are_marked(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    found = intervals(origin, *((number / 4, number / 4 + 0.1, 1 + number * 3 % 8) for number in range(8)))
    shown = read_again_markers(found, timeline)
    assert [marker.text.split()[7] for marker in shown] == ["4", "7", "5", "8", "6"]


def test_limit_is_marked_once_at_its_earliest_sign(
    timeline: pd.DataFrame, new_report: Callable[..., OomReport], origin: pd.Timestamp
) -> None:
    def report(seconds: float | None, cgroup: str = "/a") -> OomReport:
        at = None if seconds is None else origin + pd.Timedelta(seconds, "s")
        found = new_report(cgroup=cgroup)
        return replace(found, cushion=replace(found.cushion, limit_reached_at=at))

    def marked(reports: list[OomReport], *seconds: float) -> list[float]:
        reached = [origin + pd.Timedelta(one, "s") for one in seconds]
        found = limit_markers(reports, "/a", reached, timeline)
        assert not any(marker.is_kill for marker in found)
        return [(marker.time - origin).total_seconds() for marker in found]

    assert marked([report(1.5), report(2.5)], 2) == [1.5]
    assert marked([report(2.5)], -1, 2, 3) == [2]
    assert marked([report(None), report(1, "/b")]) == []
    assert marked([report(9)], -1) == []
