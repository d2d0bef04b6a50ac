"""The pictures of a fleet's page show its numbers, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pandas as pd
import pytest

from tracer.analysis.results.kill import Cause
from tracer.fleet.reduction.fleet_answer import Fleet, KillCount, KillsOverTime
from tracer.render.fleet import fleet_page, fleet_pictures

BEGIN = pd.Timestamp("2026-11-20 06:00", tz="UTC")
HOSTILE = "\x1b[31m<script>&\"'"


def share(percent: str) -> float:
    return float(percent.removesuffix("%"))


def test_each_cause_has_a_colour_of_its_own() -> None:
    names, colours = zip(*fleet_pictures.colours(), strict=True)
    assert len(set(names)) == len(set(colours)) == len(get_args(Cause))


def test_bars_are_to_the_scale_of_the_most_kills(fleet: Fleet) -> None:
    more = KillCount("shmem", "shop/web/app", "node-2", 5, BEGIN, BEGIN)
    found = fleet_pictures.by_workload(replace(fleet, kills=[*fleet.kills, more]))
    assert found is not None
    assert [(bar.label, bar.words) for bar in found.bars] == [("shop/web/app", "25"), ("postgres", "3")]
    widths = [[share(part.width) for part in bar.parts] for bar in found.bars]
    assert widths == [[80, 20], [12]]
    assert [part.left for part in found.bars[0].parts] == ["0%", "80%"]
    assert [words for _, words in found.keys] == ["anon_growth", "shmem"]
    assert found.bars[0].parts[1].name == found.bars[1].parts[0].name, "a cause has one colour"


def test_workloads_beyond_the_first_are_counted(fleet: Fleet) -> None:
    kills = [replace(fleet.kills[0], workload=f"w{number:02}", count=number + 1) for number in range(20)]
    found = fleet_pictures.by_workload(replace(fleet, kills=kills))
    assert found is not None
    assert len(found.bars) == 15 and found.bars[0].label == "w19"
    assert found.note == "5 workloads more: see the table."


def test_peaks_and_suggestions_are_to_the_scale_of_the_limit(fleet: Fleet) -> None:
    found = fleet_pictures.limits(fleet)
    assert found is not None
    bars = {bar.label: bar for bar in found.bars}
    assert list(bars) == ["shop/web/app", "postgres", "batch"], "new has no known peak, cron no limit"
    app = bars["shop/web/app"]
    ticks = {name: share(place) for name, place in app.ticks}
    parts = {part.name: share(part.width) for part in app.parts}
    assert ticks["better"] / ticks["limit"] == pytest.approx(310 / 256, rel=1e-3)
    assert parts["peak"] / ticks["limit"] == pytest.approx(190 / 256, rel=1e-3)
    assert parts["largest"] == ticks["limit"]
    assert {share(place) for bar in found.bars for name, place in bar.ticks if name == "limit"} == {
        ticks["limit"]
    }
    assert [bar.words for bar in found.bars] == [
        "256 MiB of 256 MiB; suggested 310 MiB",
        "1 GiB of 1 GiB; needs more than 1 GiB",
        "97 MiB of 2 GiB; suggested 120 MiB",
    ]


def test_columns_add_up_to_the_kills_of_their_time(fleet: Fleet) -> None:
    counts = {"shmem": (0, 2, 0, 1), "anon_growth": (1, 0, 0, 3)}
    seen = replace(fleet, kills_over_time=KillsOverTime(BEGIN, pd.Timedelta("1D"), counts))
    found = fleet_pictures.over_time(seen)
    assert found is not None
    assert [area.label for area in found.panel.areas] == ["anon_growth", "shmem"]
    upper = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", found.panel.areas[1].path.partition("L")[0])]
    heights = {round((1000 - y) / 1000 * 4 * 1.06) for y in upper}
    assert heights == {1, 2, 0, 4}
    assert [tick.label for tick in found.panel.ticks] == ["0", "1", "2", "3", "4"]
    assert found.ticks[0].label == "11-20"
    assert found.note == "One column is 24 h; times in UTC, from 2026-11-20 06:00."


def test_fleet_without_kills_and_limits_has_no_pictures(quiet: Fleet) -> None:
    assert fleet_pictures.over_time(quiet) is None
    assert fleet_pictures.by_workload(quiet) is None
    assert fleet_pictures.limits(quiet) is None
    assert "<svg" not in fleet_page.page(quiet)


def test_hostile_names_are_escaped(fleet: Fleet) -> None:
    kills = [replace(fleet.kills[0], workload=HOSTILE, cause=HOSTILE)]
    seen = KillsOverTime(BEGIN, pd.Timedelta("1D"), {HOSTILE: (1,)})
    workloads = [replace(fleet.workloads[0], workload=HOSTILE)]
    page = fleet_page.page(replace(fleet, kills=kills, workloads=workloads, kills_over_time=seen))
    assert page.count("<svg") >= 3
    assert "<script" not in page and "\x1b" not in page
