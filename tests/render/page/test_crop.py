from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tracer.analysis.results.kill import Evidence, OomReport
from tracer.render.page import crop

HOURS = pd.Timedelta("5h")


def with_growth(report: OomReport, seconds: float | None) -> OomReport:
    """Return the kill with a growth over this time as its only evidence."""
    numbers = {} if seconds is None else {"span_ns": round(seconds * 1e9)}
    evidence = (Evidence("growth", numbers, ("charge",)),)
    cushion = replace(report.cushion, exhausted_at=None)
    return replace(report, verdict=replace(report.verdict, evidence=evidence), cushion=cushion)


def lengths(report: OomReport, life: crop.Span) -> tuple[float, float]:
    """Return the seconds shown before and after the kill."""
    story = crop.of_kill(report, life)
    assert story is not None and report.time is not None
    return (report.time - story[0]).total_seconds(), (story[1] - report.time).total_seconds()


def test_story_begins_before_the_growth_and_ends_after_the_kill(report: OomReport) -> None:
    assert report.time is not None
    life = report.time - HOURS, report.time + HOURS
    assert lengths(with_growth(report, 100.0), life) == pytest.approx((120, 10))
    used_up = replace(
        with_growth(report, 10.0),
        cushion=replace(report.cushion, exhausted_at=report.time - pd.Timedelta("50s")),
    )
    assert lengths(used_up, life) == pytest.approx((60, 5))


def test_story_of_unknown_length_is_half_a_minute(report: OomReport) -> None:
    assert report.time is not None
    life = report.time - HOURS, report.time + HOURS
    assert lengths(with_growth(report, None), life) == pytest.approx((36, 3))


def test_story_stays_within_the_life_of_the_cgroup(report: OomReport) -> None:
    assert report.time is not None
    life = report.time - pd.Timedelta("1s"), report.time
    assert crop.of_kill(with_growth(report, 100.0), life) == life
    assert crop.of_kill(replace(report, time=None), life) is None
    later = report.time + pd.Timedelta("1s"), report.time + HOURS
    assert crop.of_kill(report, later) is None


@pytest.mark.parametrize(
    ("told_s", "last_s"), [(3600, 10), (29, 5), (10, 2), (1.4, 0.2), (0.5, None), (1.6, 0.5)]
)
def test_last_moments_are_round_and_a_third_of_the_story_at_most(
    report: OomReport, told_s: float, last_s: float | None
) -> None:
    kill = report.time
    assert kill is not None
    last = crop.last_moments(kill, (kill - pd.Timedelta(told_s, "s"), kill + pd.Timedelta("1s")))
    if last_s is None:
        assert last is None
        return
    assert last is not None
    assert (kill - last[0]).total_seconds() == pytest.approx(last_s)
    assert kill < last[1] <= kill + pd.Timedelta("1s")
