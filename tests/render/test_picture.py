"""The parts of every picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from tracer.analysis.results.kill import OomReport
from tracer.analysis.views.reclaim import STALLED
from tracer.categories import LAYERS
from tracer.render.picture import (
    WAITS,
    bounds,
    kill_markers,
    limit_markers,
    peak,
    psi_ms,
    read_again_markers,
    stacked_layers,
    stacked_waits_ms,
)

MIB = 1 << 20


def test_stacked_timeline_of_known_counters_adds_up_to_usage(
    new_timeline: Callable[..., pd.DataFrame],
) -> None:
    timeline = new_timeline(20)
    total = stacked_layers(timeline).sum(axis=1).to_numpy()
    assert np.abs(total - timeline["usage_bytes"].to_numpy(float)).max() <= 4


def test_stacked_timeline_without_a_counter_has_the_rest_as_other(timeline: pd.DataFrame) -> None:
    timeline["anon_bytes"] = pd.array([pd.NA] * len(timeline), dtype="Int64")
    layers = stacked_layers(timeline)
    assert (layers["anon"] == 0).all()
    np.testing.assert_allclose(layers.sum(axis=1), timeline["usage_bytes"].to_numpy(float), atol=4)
    assert layers["other"].max() > 90 << 20


def test_stacked_timeline_with_more_dirty_than_cache_has_no_clean_cache(timeline: pd.DataFrame) -> None:
    timeline["file_dirty_bytes"] = timeline["cache_bytes"] * 2
    layers = stacked_layers(timeline)
    assert (layers["cache"] == 0).all()
    np.testing.assert_array_equal(layers["dirty"], timeline["cache_bytes"].to_numpy(float))


def test_zswap_is_a_layer_of_its_own_within_other_kernel_memory(timeline: pd.DataFrame) -> None:
    before = stacked_layers(timeline)
    timeline["kernel_other_bytes"] += 30 * MIB
    timeline["usage_bytes"] += 30 * MIB
    timeline["zswap_bytes"] = pd.array([20 * MIB] * len(timeline), dtype="Int64")
    layers = stacked_layers(timeline)
    assert (layers["zswap"] == 20 * MIB).all()
    np.testing.assert_array_equal(layers["kernel"], before["kernel"] + 10 * MIB)
    np.testing.assert_allclose(layers.sum(axis=1), timeline["usage_bytes"].to_numpy(float), atol=4)


def test_sample_of_zswap_takes_at_most_the_memory_that_contains_it(timeline: pd.DataFrame) -> None:
    timeline["zswap_bytes"] = pd.array([20 * MIB] * len(timeline), dtype="Int64")
    layers = stacked_layers(timeline)
    np.testing.assert_array_equal(layers["zswap"], timeline["kernel_other_bytes"].to_numpy(float))


def test_column_of_each_wait_is_in_the_timeline() -> None:
    assert [f"stalled_{wait.name}_ms" for wait in WAITS] == [*STALLED, "stalled_reread_ms"]


def test_waits_have_distinct_glyphs_and_colours() -> None:
    for key in ("glyph", "terminal", "hex", "label"):
        assert len({getattr(wait, key) for wait in WAITS}) == len(WAITS)
    assert {wait.glyph for wait in WAITS}.isdisjoint(layer.glyph for layer in LAYERS)


def test_throttled_waits_are_not_counted_twice(waiting: pd.DataFrame) -> None:
    stacked = stacked_waits_ms(waiting)
    np.testing.assert_allclose(stacked["reclaim"] + stacked["throttled"], waiting["stalled_reclaim_ms"])
    assert stacked["throttled"].sum() > 0
    assert (stacked["high"] == 0).all()


def test_unread_pressure_is_nan(timeline: pd.DataFrame, waiting: pd.DataFrame) -> None:
    assert np.isnan(psi_ms(timeline, "some")).all()
    assert psi_ms(waiting, "full")[0] == 0


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


def test_limit_is_marked_at_its_earliest_sign_and_again_after_each_time_below(
    timeline: pd.DataFrame, new_report: Callable[..., OomReport], origin: pd.Timestamp
) -> None:
    """The kill of each report is at 3.4 s."""

    def report(seconds: float | None, cgroup: str = "/a") -> OomReport:
        at = None if seconds is None else origin + pd.Timedelta(seconds, "s")
        found = new_report(cgroup=cgroup)
        return replace(found, cushion=replace(found.cushion, limit_reached_at=at))

    def marked(reports: list[OomReport], *seconds: float) -> list[float]:
        reached = [origin + pd.Timedelta(one, "s") for one in seconds]
        found = limit_markers(reports, "/a", reached, timeline)
        assert not any(marker.is_kill for marker in found)
        assert [marker.text.endswith("again") for marker in found] == [False, True, True, True, True][
            : len(found)
        ]
        return [(marker.time - origin).total_seconds() for marker in found]

    assert marked([report(1.5), report(1.5)], 2) == [1.5], "one shortage"
    assert marked([report(2.5)], -1, 2, 3) == [2, 2.5], "the kill knows an earlier sign than 3"
    assert marked([report(2.5)], 3.5) == [2.5, 3.5]
    assert marked([], 0.1, 0.2, 0.3, 0.4, 0.5) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert marked([], 0.1, 0.2, 0.3, 0.4, 0.5, 0.6) == [0.1]
    assert marked([report(None), report(1, "/b")]) == []
    assert marked([report(9)], -1) == []


def test_bounds_that_usage_stayed_far_below_are_not_drawn(timeline: pd.DataFrame) -> None:
    most = peak(timeline)
    timeline["high_bytes"] = pd.array([int(most * 4)] * len(timeline), dtype="Int64")
    timeline.loc[timeline.index[3:], "high_bytes"] = pd.NA
    limit, high = bounds(timeline, most)
    assert (limit.name, limit.words, limit.top_bytes) == ("limit", "limit 100 MiB", 100 << 20)
    assert high.words.startswith("memory.high 4")
    assert np.isnan(high.in_bytes).sum() == len(timeline) - 3, "a bound that is not set is a gap"
    timeline["high_bytes"] = int(most * 4) + 4
    assert [one.name for one in bounds(timeline, most)] == ["limit"]
    timeline["limit_bytes"] = pd.NA
    assert list(bounds(timeline, most)) == []
    timeline["usage_bytes"] = pd.NA
    assert peak(timeline) == 0


def test_bound_that_changed_has_no_size_in_its_words(timeline: pd.DataFrame) -> None:
    timeline.loc[timeline.index[3:], "limit_bytes"] = 50 << 20
    assert [one.words for one in bounds(timeline, peak(timeline))] == ["limit"]
