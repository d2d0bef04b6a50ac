"""The timeline of a cgroup for a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from rich.cells import cell_len

from tracer.analysis.results.kill import OomReport
from tracer.categories import LAYERS
from tracer.render.picture import kill_markers, limit_markers
from tracer.render.terminal import console, timeline_text
from tracer.render.terminal.timeline_text import Heading, legend, picture

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]<script>\nx\udc80" + "y" * 200


@pytest.fixture
def heading(origin: pd.Timestamp) -> Heading:
    return Heading("/memcg-tracer-77-page-cache", None, 1, 1, "6.18.5", origin, 0, False)


def drawn(
    timeline: pd.DataFrame,
    heading: Heading,
    reports: list[OomReport] = [],  # noqa: B006 - never changed
    columns: int = 100,
    colour: bool = False,
) -> str:
    found = limit_markers(reports, heading.cgroup, [], timeline)
    found += kill_markers(reports, heading.cgroup, timeline)
    shown = picture(timeline, heading, found, columns=columns)
    return console.to_text([*shown.lines, *legend([shown])], columns=columns, colour=colour)


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_page_cache_experiment_matches_the_golden_file(
    timeline: pd.DataFrame,
    heading: Heading,
    report: OomReport,
    columns: int,
    matches_golden: Callable[[str, str], None],
) -> None:
    shown = drawn(timeline, heading, [report], columns)
    matches_golden(f"timeline-{columns}.txt", shown)
    assert max(map(cell_len, shown.splitlines())) <= columns


@pytest.mark.parametrize("columns", range(60, 110))
def test_entries_of_the_legend_are_not_broken(waiting: pd.DataFrame, heading: Heading, columns: int) -> None:
    lines = drawn(waiting.iloc[4:24], heading, columns=columns).splitlines()
    entries = [f"{layer.glyph} {layer.label}" for layer in LAYERS if layer.is_common]
    entries += ["│ the limit", "✗ OOM kill"]
    if columns >= 80:  # the waits have no room for a lane on a narrower screen
        entries += ["r reclaim", "w throttled", "d dirty pages"]
    assert [entry for entry in entries if not any(entry in line for line in lines)] == []


def test_legend_names_zswap_only_where_it_was_drawn(timeline: pd.DataFrame, heading: Heading) -> None:
    assert "zswap" not in drawn(timeline, heading)
    timeline["kernel_other_bytes"] += 30 * MIB
    timeline["zswap_bytes"] = pd.array([30 * MIB] * len(timeline), dtype="Int64")
    shown = drawn(timeline, heading)
    assert "% zswap" in shown and "%%%%" in shown


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_waits_have_a_lane_beside_pressure(
    waiting: pd.DataFrame, heading: Heading, columns: int, matches_golden: Callable[[str, str], None]
) -> None:
    shown = drawn(waiting.iloc[4:24], heading, columns=columns)
    matches_golden(f"timeline-waits-{columns}.txt", shown)
    assert max(map(cell_len, shown.splitlines())) <= columns


def test_lane_is_to_scale_without_pressure(waiting: pd.DataFrame, heading: Heading) -> None:
    """A row has 37 ms of waits for dirty pages; 114.2 ms are 10 cells."""
    waiting["psi_some_us"] = waiting["psi_full_us"] = pd.array([pd.NA] * len(waiting), dtype="Int64")
    shown = drawn(waiting, heading)
    lines = {line[:9].strip(): line for line in shown.splitlines() if "│" in line}
    assert lines["0.8 s"].endswith("37.0  ddd")
    assert lines["1.1 s"].endswith("114.2  rrrrrrrddd")
    assert "PSI" not in shown


def test_swap_traffic_has_columns(timeline: pd.DataFrame, heading: Heading) -> None:
    timeline = timeline.iloc[:12].copy()
    assert "swap" not in drawn(timeline, heading).replace("only swap", "").replace("only to swap", "")
    timeline["swap_written_bytes"] = pd.array([0] * 8 + [3 * MIB, 0, MIB, 7 * MIB // 4], dtype="Int64")
    timeline["swap_write_mean_ms"] = [*[float("nan")] * 8, 61.24, *[float("nan")] * 3]
    shown = drawn(timeline, heading)
    rows = [line.split() for line in shown.splitlines() if "│" in line and " s " in line]
    assert [row[-2:] for row in rows[8:9] + rows[10:]] == [["3.0", "61.2"], ["1.0", "?"], ["1.8", "?"]]
    assert rows[9][-1] not in ("?", "0.0")
    assert "5.8 MiB was written to swap." in " ".join(shown.split())
    assert "in ms" not in shown
    timeline["swap_read_bytes"] = pd.array([0] * 11 + [MIB], dtype="Int64")
    timeline["swap_read_mean_ms"] = [*[float("nan")] * 11, 0.52]
    both = drawn(timeline, heading)
    rows = [line.split() for line in both.splitlines() if "│" in line and " s " in line]
    assert rows[-1][-4:] == ["1.8", "?", "1.0", "0.5"]
    assert "5.8 MiB was written to swap and 1 MiB was read from it." in " ".join(both.split())
    timeline["swap_written_bytes"] = 0
    assert "1 MiB was read from swap." in " ".join(drawn(timeline, heading).split())


def test_heading_has_memory_high_if_it_is_set(timeline: pd.DataFrame, heading: Heading) -> None:
    assert "memory.high" not in drawn(timeline, heading)
    timeline["high_bytes"] = pd.array([pd.NA, *[90 * MIB] * (len(timeline) - 1)], dtype="Int64")
    assert "limit 100 MiB, memory.high 90 MiB, " in drawn(timeline, heading)
    timeline.loc[timeline.index[3:], "high_bytes"] = 50 * MIB
    assert ", memory.high 90 MiB, later memory.high 50 MiB, " in drawn(timeline, heading)
    timeline["is_high_limited"] = timeline["high_bytes"].notna()
    assert "no memory.high, later memory.high 90 MiB, later memory.high 50 MiB" in " ".join(
        drawn(timeline, heading).split()
    )


def test_timeline_with_only_reclaim_waits_has_no_lane(timeline: pd.DataFrame, heading: Heading) -> None:
    assert "waiting" not in drawn(timeline, heading)
    timeline["psi_some_us"] = timeline["psi_full_us"] = 0
    assert "waiting" not in drawn(timeline, heading)
    timeline.loc[timeline.index[9], "psi_some_us"] = 1
    assert "waiting" in drawn(timeline, heading)


@pytest.mark.parametrize("columns", [60, 80, 97, 100, 160])
def test_hostile_names_are_escaped_within_the_width(
    timeline: pd.DataFrame,
    heading: Heading,
    new_report: Callable[..., OomReport],
    columns: int,
) -> None:
    hostile = replace(heading, cgroup="/" + HOSTILE, container=HOSTILE, kernel=HOSTILE)
    shown = drawn(timeline, hostile, [new_report(HOSTILE, "/" + HOSTILE)], columns)
    assert "\x1b" not in shown
    assert r"\x1b[31m[red]<" in shown
    assert "OOM kill" in shown
    assert max(map(cell_len, shown.splitlines())) <= columns
    assert "\x1b[31m[red]" not in drawn(timeline, hostile, columns=columns, colour=True)


def test_colour_adds_nothing_but_colour(timeline: pd.DataFrame, heading: Heading, report: OomReport) -> None:
    plain, coloured = (drawn(timeline, heading, [report], colour=colour) for colour in (False, True))
    assert "\x1b[38;5;166m" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_bars_are_to_scale(timeline: pd.DataFrame, heading: Heading) -> None:
    lines = [line for line in drawn(timeline, heading).splitlines() if line.startswith("    2.5 s")]
    bar = lines[0][10 : lines[0].index("│")]
    row = timeline.iloc[24]
    for glyph, part in (("█", "anon_bytes"), ("░", "cache_bytes")):
        assert bar.count(glyph) == pytest.approx(row[part] / (100 * MIB) * len(bar), abs=1)


def test_limit_far_above_usage_is_named_but_not_drawn(timeline: pd.DataFrame, heading: Heading) -> None:
    timeline["limit_bytes"] = 8 << 30
    shown = drawn(timeline, heading)
    assert "limit 8 GiB" in shown
    rows = [line for line in shown.splitlines() if line.startswith("    2.0 s")]
    assert "│" not in rows[0]


def test_timeline_of_a_run_has_its_number(timeline: pd.DataFrame, heading: Heading) -> None:
    first = drawn(timeline, replace(heading, container="web", run=3, runs=7)).splitlines()[0]
    assert first == "run 3 of 7: container web  /memcg-tracer-77-page-cache"
    assert "run" not in drawn(timeline, heading).splitlines()[0]


def test_timeline_without_a_limit_says_so(timeline: pd.DataFrame, heading: Heading) -> None:
    timeline["limit_bytes"], timeline["is_limited"] = pd.NA, False
    assert "no limit" in drawn(timeline, heading).splitlines()[1]


def test_limits_in_the_heading_are_plain_words(timeline: pd.DataFrame, heading: Heading) -> None:
    def words(*limits: tuple[int, int | None]) -> str:
        """Return the heading if the limit is set (MiB; None: no limit) from a row on."""
        changed = timeline.copy()
        for row, mib in limits:
            changed.loc[changed.index[row:], "limit_bytes"] = pd.NA if mib is None else mib * MIB
        return drawn(changed, heading).splitlines()[1].split(", 4 s")[0]

    assert words((0, None), (3, 48)) == "no limit, later limit 48 MiB"
    assert words((0, 48), (3, None)) == "limit 48 MiB, later no limit"
    assert words((5, 50), (20, 100)) == "limit 100 MiB, later limit 50 MiB, later limit 100 MiB"
    assert words((5, 50), (9, 60), (20, 70)) == "limit 100 MiB, changed 3 times, limit 70 MiB at the end"


@pytest.mark.parametrize("offset_ns", [0, 3, 1_250_000, 6_100_000, 99_999_999])
@pytest.mark.parametrize("step_ms", [1, 10, 100])
def test_labels_are_in_the_order_of_time(
    new_timeline: Callable[..., pd.DataFrame],
    heading: Heading,
    report: OomReport,
    step_ms: int,
    offset_ns: int,
) -> None:
    """Rows that begin at no round time do not seem to end before an event within them."""
    assert report.time is not None
    shown = replace(report.cushion, limit_reached_at=report.time - pd.Timedelta(7_300_000, "ns"))
    timeline = new_timeline(step_ms).iloc[3300 // step_ms : 3430 // step_ms + 1]
    attrs = timeline.attrs
    timeline.index = timeline.index + pd.Timedelta(offset_ns, "ns")
    timeline.attrs = attrs
    lines = drawn(timeline, heading, [replace(report, cushion=shown)]).splitlines()
    times = [float(found.group(1)) for line in lines if (found := re.match(r" *(\d+\.\d+) s ", line))]
    assert times == sorted(times)
    assert sum("→ usage has reached" in line or "✗ OOM kill:" in line for line in lines) == 2


def test_limit_is_reached_before_the_kill_of_the_same_row(
    timeline: pd.DataFrame, heading: Heading, report: OomReport
) -> None:
    at_once = replace(report, cushion=replace(report.cushion, limit_reached_at=report.time))
    shown = drawn(timeline, heading, [at_once])
    assert shown.index("has reached the limit") < shown.index("✗ OOM kill:")


def test_clock_labels_rows_with_the_time_of_day(
    timeline: pd.DataFrame, heading: Heading, report: OomReport
) -> None:
    lines = drawn(timeline, replace(heading, has_clock=True), [report]).splitlines()
    assert lines[4].lstrip().startswith("UTC ")
    assert any(line.startswith("23:40:03.501 ") or line.startswith("23:40:04.412 ") for line in lines)
    assert all(len(line) <= 100 for line in lines)
    timeline.index = timeline.index + pd.Timedelta(1198, "s")
    dated = drawn(timeline, replace(heading, has_clock=True)).splitlines()
    assert {line[:6] for line in dated if re.match(r"\d\d-\d\d ", line)} == {"11-24 ", "11-25 "}


def test_heading_has_the_begin_to_the_millisecond(timeline: pd.DataFrame, heading: Heading) -> None:
    """The begin and the seconds of a row are its time of day."""
    timeline.index = timeline.index + pd.Timedelta(45, "ms")
    assert "from 2025-11-24 23:40:01.045 UTC in rows of 100 ms" in drawn(timeline, heading)


def test_lowered_limit_has_its_tick_inside_the_bar(timeline: pd.DataFrame, heading: Heading) -> None:
    timeline.loc[timeline.index[20:], "limit_bytes"] = 50 * MIB
    shown = drawn(timeline, heading)
    assert "limit 100 MiB, later limit 50 MiB" in shown
    row = next(line for line in shown.splitlines() if line.startswith("    2.5 s"))
    assert row[row.index("│") + 1] in "█░"


def test_unknown_is_a_question_mark_and_zero_is_blank(timeline: pd.DataFrame, heading: Heading) -> None:
    for column in ("cache_refaulted_bytes", "refault_bytes"):
        timeline[column] = pd.array([pd.NA] * len(timeline), dtype="Int64")
    shown = drawn(timeline, heading)
    row = next(line for line in shown.splitlines() if line.startswith("    1.3 s"))
    assert row.split("│")[1].split() == ["100.0", "?"]
    assert "not known read again (by the kernel's count not known)" in " ".join(shown.split())


def test_timeline_without_a_measurement_says_so(timeline: pd.DataFrame, heading: Heading) -> None:
    timeline["usage_bytes"] = pd.array([pd.NA] * len(timeline), dtype="Int64")
    assert "was not measured" in drawn(timeline, heading)
    assert "was not measured" in drawn(timeline.iloc[:0], heading)


def test_loss_and_interruption_are_reported(timeline: pd.DataFrame, heading: Heading) -> None:
    shown = drawn(timeline, replace(heading, lost_records=1234, interrupted=True))
    assert "1,234 records were lost" in shown
    assert "interrupted" in shown


def test_dropped_cache_has_a_column_if_it_is_large(timeline: pd.DataFrame, heading: Heading) -> None:
    assert " dropped " not in drawn(timeline, heading).splitlines()[4]
    timeline["cache_dropped_bytes"] = timeline["cache_evicted_bytes"]
    assert " dropped " in drawn(timeline, heading).splitlines()[4]


def test_timeline_of_one_row_is_drawn(timeline: pd.DataFrame, heading: Heading) -> None:
    assert "100.0" in drawn(timeline.iloc[20:21], heading)


def test_kill_has_a_bar_of_its_own_instant(
    timeline: pd.DataFrame, heading: Heading, report: OomReport
) -> None:
    lines = drawn(timeline, heading, [report]).splitlines()
    kill = next(number for number, line in enumerate(lines) if "✗ OOM kill: python3" in line)
    at_kill = lines[kill - 1]
    assert at_kill.startswith("  3.412 s ")
    assert at_kill.count("█") >= 0.95 * len(at_kill[10 : at_kill.index("│")])
    assert at_kill.endswith("100.0")
    assert lines[kill + 1].startswith("    3.5 s   ")
    group = replace(report, victims=(report.victims[0], replace(report.victims[0], pid=124)))
    both = drawn(timeline, heading, [group])
    assert both.count("✗ OOM kill: python3") == 2
    assert both.count("  3.412 s ") == 2


def test_column_of_what_was_read_again_is_there_if_anything_was(
    timeline: pd.DataFrame, heading: Heading
) -> None:
    def heads() -> str:
        return drawn(timeline, heading).splitlines()[4]

    assert "evicted  read again" in heads()
    timeline["cache_refaulted_bytes"] = 0
    assert "read again" not in heads()
    timeline.loc[timeline.index[7], "cache_refaulted_bytes"] = pd.NA
    assert "read again" in heads(), "what is not known is not left out"


PARTS = [["memcg-tracer", "timeline", "traces/a b"], ["-c", "/it's"], ["--begin", "1.5s", "--end", "2s"]]


@pytest.mark.parametrize("columns", [30, 60, 100])
def test_lines_of_a_command_are_one_command_for_a_shell(columns: int) -> None:
    lines = [line.plain for line in timeline_text.command_lines(PARTS, columns)]
    assert max(map(len, lines)) <= max(columns, 46)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == [word for part in PARTS for word in part]
    assert len(timeline_text.command_lines(PARTS, 1000)) == 1


def test_unsafe_or_long_word_is_not_pasted() -> None:
    assert timeline_text.may_be_pasted("/a b'c", 60)
    assert not timeline_text.may_be_pasted("/a\x1b[31m", 60)
    assert not timeline_text.may_be_pasted("/" + "4f" * 32, 60)
