"""The time ranges of a chart: the story of a kill, and its last moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from tracer.analysis.results.kill import OomReport

Span = tuple[pd.Timestamp, pd.Timestamp]
"""Begin and end, UTC."""

_LEAD: Final = 0.2
"""The time to show before the story begins, as a share of the story's time before the kill."""

_TAIL: Final = 0.1
_LEAST_S: Final = 0.2
_UNKNOWN_S: Final = 30.0
_LAST_S: Final = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2)
_LAST_SHARE: Final = 0.34


def of_kill(report: OomReport, life: Span) -> Span | None:
    """Return the time range of the story of a kill within the `life` of its cgroup: from the moment at which
    the memory under the limit began to grow until a little after the kill.

    Assume 30 s if nothing shows where the story begins. Return None if the time of the kill is not known or
    not in that life.
    """
    begin, end = life
    if report.time is None or not begin <= report.time <= end:
        return None
    told_s = max(_lengths_s(report, report.time), default=_UNKNOWN_S)
    before = pd.Timedelta(max(told_s * (1 + _LEAD), _LEAST_S), "s")
    after = pd.Timedelta(max(told_s * _TAIL, _LEAST_S / 4), "s")
    return max(begin, report.time - before), min(end, report.time + after)


def last_moments(kill: pd.Timestamp, story: Span) -> Span | None:
    """Return the last seconds before a kill, at most a third of its story; None if the story is too short.

    The length is a round number of at most 10 s.
    """
    begin, end = story
    told_s = (kill - begin).total_seconds()
    length_s = next((one for one in _LAST_S if one <= told_s * _LAST_SHARE), None)
    if length_s is None:
        return None
    return kill - pd.Timedelta(length_s, "s"), min(end, kill + pd.Timedelta(length_s * _TAIL, "s"))


def _lengths_s(report: OomReport, kill: pd.Timestamp) -> Iterator[float]:
    """Yield the time from the begin of each known part of the story to the kill, in s."""
    for item in report.verdict.evidence:
        span_ns = item.numbers.get("span_ns")
        if isinstance(span_ns, int | float):
            yield span_ns / 1e9
    if report.cushion.exhausted_at is not None:
        yield (kill - report.cushion.exhausted_at).total_seconds()
    if report.allocators and report.allocators[0].grew_from is not None:
        yield (kill - report.allocators[0].grew_from).total_seconds()
