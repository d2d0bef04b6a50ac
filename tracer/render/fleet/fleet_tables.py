"""Sentences and tables of a fleet's answer, for the text and the page. All names in them are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd

from tracer import units
from tracer.fleet.reduction.fleet_answer import Evictor, Fleet, KillCount, Peaks, Workload
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

NAMES: Final = ("workload", "host", "by tasks of", "cache of")
"""The titles of the columns of names, which may be long."""

_LIMITS_NOTE: Final = (
    "p50 / p90 / max: of the runs' peaks, each of the memory that reclaim could not have freed. suggested: "
    "the limit that at most one run in a thousand is expected to exceed; "
    '"try": too many runs were killed to know their need, so try this limit; blank: too few runs, or kills '
    "that more memory would not have prevented."
)
_RULES_NOTE: Final = (
    "slack: the suggestion less the median need. at risk: runs that may exceed the suggestion all the same, "
    "at a confidence of 95 %. VPA, KRR: the limits that the rules of the Kubernetes Vertical Pod Autoscaler "
    "and of KRR give, from the working set of each minute."
)
_EXPECTED_NOTE: Final = " expected: runs that are expected to exceed the suggestion."
_ENOUGH_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a heading. A column is a title and its alignment, `<` or `>`; the last one is a name.

    `note` explains the columns, and `more` counts the rows that were left out. A text that is narrower than
    `wide_cells` does without the column `wide`, and `wide_note`, which explains it.
    """

    heading: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    note: str = ""
    more: int = 0
    wide: str = ""
    wide_note: str = ""
    wide_cells: int = 90


def sentence(fleet: Fleet) -> str:
    """Return the answer in one or two sentences."""
    total = sum(one.count for one in fleet.kills)
    where = f"{counted(fleet.traces, 'trace')} of {counted(len(fleet.hosts), 'host')}"
    if not total:
        return f"There is no kill in {where}."
    killed = {one.workload for one in fleet.kills}
    on_hosts = len({one.host for one in fleet.kills})
    said = f"{counted(total, 'kill')} of {counted(len(killed), 'workload')} on {counted(on_hosts, 'host')}"
    first = _by_cause_and_workload(fleet.kills)[0]
    most = ""
    if first.count < total:
        most = f" Most often: {visible(first.workload)}, {_times(first.count)} ({visible(first.cause)})."
    return f"{said}, in {where}.{most}"


def facts(fleet: Fleet) -> Iterator[Fact]:
    """Yield what the answer is from, with all losses."""
    if fleet.begin is not None and fleet.end is not None:
        yield "recorded", f"from {_minute(fleet.begin)} to {_minute(fleet.end)} UTC"
    if suggested := len(_compared(fleet.workloads)):
        below, above = wrong_limits(fleet.workloads)
        yield (
            "limits",
            f"{counted(suggested, 'workload')} with a suggestion: {below} below it, {above} above it",
        )
    lossy = [host for host in fleet.hosts if host.lost_records]
    if lossy:
        lost = sum(host.lost_records or 0 for host in lossy)
        yield (
            "lost",
            f"{counted(lost, 'record')} on {counted(len(lossy), 'host')}: amounts of page cache may be too "
            "low, and peaks as well",
        )
    if uncounted := sum(host.uncounted_traces for host in fleet.hosts):
        yield "interrupted", f"{counted(uncounted, 'trace')}, of which it is not known what was lost"
    for host in fleet.hosts:
        if host.machines > 1:
            yield "names", f"at least {host.machines} machines are called {visible(host.host)}"
    if fleet.broken:
        yield "left out", f"{counted(len(fleet.broken), 'trace')} that cannot be read, listed at the end"


def sections(fleet: Fleet, most_rows: int) -> Iterator[Section]:
    """Yield the tables that have rows, with at most so many each; the last one is what was left out."""
    for one in (
        _kills(fleet),
        _limits(fleet),
        _rules(fleet),
        _evictors(fleet),
        _hosts(fleet),
        _broken(fleet),
    ):
        if one.rows or one.note:
            yield replace(one, rows=one.rows[:most_rows], more=max(len(one.rows) - most_rows, 0))


def evicted_by_others(fleet: Fleet) -> int:
    """Return the bytes of page cache that tasks of another workload than its own evicted."""
    return sum(one.evicted_bytes or 0 for one in fleet.evictors if not _is_its_own(one))


def _is_its_own(one: Evictor) -> bool:
    return one.owner_workload == one.evictor_workload


@dataclass(frozen=True, slots=True)
class _Killed:
    cause: str
    workload: str
    hosts: int
    count: int
    last: pd.Timestamp


def _by_cause_and_workload(kills: Iterable[KillCount]) -> list[_Killed]:
    """Return the kills of all hosts together, the most first."""
    groups: dict[tuple[str, str], list[KillCount]] = {}
    for one in kills:
        groups.setdefault((one.cause, one.workload), []).append(one)
    found = [
        _Killed(cause, name, len(group), sum(one.count for one in group), max(one.last for one in group))
        for (cause, name), group in groups.items()
    ]
    return sorted(found, key=lambda one: (-one.count, one.cause, one.workload))


def _kills(fleet: Fleet) -> Section:
    columns = (("kills", ">"), ("hosts", ">"), ("last, UTC", "<"), ("cause", "<"), ("workload", "<"))
    rows = [
        (
            units.count(one.count),
            units.count(one.hosts),
            _minute(one.last),
            visible(one.cause),
            visible(one.workload),
        )
        for one in _by_cause_and_workload(fleet.kills)
    ]
    return Section("Kills by cause and workload", columns, rows)


def _limits(fleet: Fleet) -> Section:
    columns = (
        *(("kills", ">"), ("runs", ">"), ("limit", ">"), ("p50 / p90 / max", ">")),
        *(("suggested", ">"), ("workload", "<")),
    )
    rows = [
        (
            units.count(one.kills),
            units.count(one.runs),
            _limit(one),
            _peaks(one.peak_unreclaimable_bytes),
            _suggested(one),
            visible(one.workload),
        )
        for one in _of_interest(fleet)
    ]
    return Section("Limits", columns, rows, _LIMITS_NOTE if rows else "")


def _rules(fleet: Fleet) -> Section:
    columns = (
        *(("suggested", ">"), ("slack", ">"), ("expected", ">"), ("at risk", ">")),
        *(("VPA", ">"), ("KRR", ">"), ("workload", "<")),
    )
    rows = [
        (
            _suggested(one),
            _if_suggested(one, units.size(one.suggestion.slack_bytes)),
            _if_suggested(one, _share(one.suggestion.expected_kills_per_run)),
            _if_suggested(one, _share(one.suggestion.highest_kills_per_run)),
            units.size(one.vpa_limit_bytes),
            units.size(one.krr_limit_bytes),
            visible(one.workload),
        )
        for one in _of_interest(fleet)
        if {one.suggestion.suggested_limit_bytes, one.vpa_limit_bytes, one.krr_limit_bytes} != {None}
    ]
    heading = "Suggested limits, beside those of other rules"
    if not rows:
        return Section(heading, columns, rows)
    return Section(heading, columns, rows, _RULES_NOTE, wide="expected", wide_note=_EXPECTED_NOTE)


def _of_interest(fleet: Fleet) -> list[Workload]:
    """Return the workloads that have a limit, or of which something was killed."""
    return [one for one in fleet.workloads if one.is_limited or one.kills]


def _evictors(fleet: Fleet) -> Section:
    columns = (
        *(("evicted", ">"), ("read again", ">"), ("hosts", ">"), ("cause", "<")),
        *(("by tasks of", "<"), ("cache of", "<")),
    )
    rows = [
        (
            units.size(one.evicted_bytes),
            units.size(one.refaulted_bytes),
            units.count(one.hosts),
            visible(one.cause),
            visible(one.evictor_workload),
            visible(one.owner_workload),
        )
        for one in fleet.evictors
        if not _is_its_own(one)
    ]
    own = sum(one.evicted_bytes or 0 for one in fleet.evictors if _is_its_own(one))
    note = (
        f"{units.size(own)} more was evicted by tasks of the workload that it was charged to." if own else ""
    )
    return Section("Who evicts whom", columns, rows, note, wide="cause")


def _hosts(fleet: Fleet) -> Section:
    columns = (("kills", ">"), ("traces", ">"), ("boots", ">"), ("lost", ">"), ("host", "<"))
    rows = [
        (
            units.count(one.kills),
            units.count(one.traces),
            units.count(one.boots),
            units.count(one.lost_records),
            visible(one.host),
        )
        for one in fleet.hosts
    ]
    return Section("Hosts", columns, rows)


def _broken(fleet: Fleet) -> Section:
    rows = [(visible(f"{one.path}: {one.why}"),) for one in fleet.broken]
    return Section("Left out, because they cannot be read", (("", "<"),), rows)


def _limit(one: Workload) -> str:
    if one.is_limited is None:
        return units.UNKNOWN
    return units.size(one.limit_bytes) if one.is_limited else "none"


def _peaks(peaks: Peaks) -> str:
    """Return `97 / 120 / 133 MiB`, in a unit that shows how they differ."""
    if peaks.max is None or peaks.p50 is None or peaks.p90 is None:
        return units.UNKNOWN
    if peaks.p50 == peaks.max:
        return units.size(peaks.max)
    unit, name = units.scale_for(peaks.max / _ENOUGH_DIGITS)
    decimals = 1 if peaks.max < 100 * unit else 0
    numbers = [
        f"{value / unit:,.{decimals}f}".removesuffix(".0") for value in (peaks.p50, peaks.p90, peaks.max)
    ]
    return f"{' / '.join(numbers)} {name}"


def _suggested(one: Workload) -> str:
    suggestion = one.suggestion
    if suggestion.suggested_limit_bytes is not None:
        return units.size(suggestion.suggested_limit_bytes)
    trial = suggestion.trial_limit_bytes
    return "" if trial is None or trial <= (one.limit_bytes or 0) else f"try {units.size(trial)}"


def _if_suggested(one: Workload, shown: str) -> str:
    return "" if one.suggestion.suggested_limit_bytes is None else shown


def _share(rate: float | None) -> str:
    return units.UNKNOWN if rate is None else f"{100 * rate:.2g} %"


def wrong_limits(workloads: Iterable[Workload]) -> tuple[int, int]:
    """Return how many workloads have a limit below the suggestion, and how many one above it."""
    compared = _compared(workloads)
    below = sum(limit < suggested for limit, suggested in compared)
    return below, sum(limit > suggested for limit, suggested in compared)


def has_suggestion(workloads: Iterable[Workload]) -> bool:
    """Return whether there is a limit to compare with a suggestion."""
    return bool(_compared(workloads))


def _compared(workloads: Iterable[Workload]) -> list[tuple[int, int]]:
    """Return the limit and the suggestion of the workloads that have both, in bytes."""
    return [
        (one.limit_bytes, one.suggestion.suggested_limit_bytes)
        for one in workloads
        if one.limit_bytes is not None and one.suggestion.suggested_limit_bytes is not None
    ]


def _minute(time: pd.Timestamp) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{units.count(count)} times"


def counted(count: int, noun: str) -> str:
    """Return `1 host` or `1,203 hosts`."""
    return f"1 {noun}" if count == 1 else f"{units.count(count)} {noun}s"
