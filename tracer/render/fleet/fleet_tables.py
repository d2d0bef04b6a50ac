"""The tables of a fleet's answer, for the text and the page. All names in them are escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tracer import units
from tracer.fleet.reduction.fleet_answer import Fleet, Peaks, Workload
from tracer.fleet.sizing.replays import Replayed
from tracer.render.fleet import limit_states
from tracer.render.fleet.fleet_facts import (
    by_cause_and_workload,
    by_sender_and_workload,
    function,
    is_its_own,
    least_in_words,
    minute,
    sender_name,
)
from tracer.render.words.escape import visible
from tracer.render.words.sigkill_words import known_sender

MOST_ROWS_OF_PAGE: Final = 500
"""More rows in one table would make a browser slow."""

KILLS: Final = "Kills by cause and workload"
SIGKILLS: Final = "SIGKILL by others than the OOM killer"
LIMITS: Final = "Limits"

NAMES: Final = ("workload", "host", "sender", "function", "by tasks of", "cache of")
"""The titles of the columns of names, which may be long."""

_LIMITS_NOTES: Final = {
    "suggested": "the limit at which reserved memory and expected kills cost least together, with room for "
    'page cache in use; "more than": too many runs were killed to know their need; "at least": '
    "too many runs were held back to know it, so they may need more; blank: too few runs, or kills that more "
    "memory would not have prevented",
    "p50 / p90 / max": "of the runs' peaks, each of the memory that reclaim could not have freed",
}
_RULES_NOTES: Final = {
    "slack": "the suggestion less the median need",
    "expected": "runs that are expected to exceed the suggestion",
    "at risk": "runs that may exceed the suggestion all the same, at a confidence of 95 %",
    "VPA": "the limit that the rule of the Kubernetes Vertical Pod Autoscaler gives, from the working set of "
    "each minute",
    "KRR": "that of KRR's rule, from the same",
}
_REPLAYS_NOTES: Final = {
    "undisturbed": "runs of those that lived which would have read (nearly) nothing again",
    "not known": "a trace shows a limit that is too low for its run, or one that is enough, but not always "
    "what is between them",
}
_ENOUGH_DIGITS: Final = 8
_LEAST_SHARE: Final = 0.0001
"""A smaller rate would be extrapolated far beyond the data: its digits would mean nothing."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a heading. A column is a title and its alignment, `<` or `>`. The last column is a name.

    `notes` maps titles of columns to explanations, and `remark` is about the whole table. `more` counts the
    rows that were left out. A text that is narrower than 90 cells leaves out the column `wide`.
    """

    heading: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    notes: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    more: int = 0
    wide: str = ""

    def explained(self) -> str:
        """Return the notes of the columns that the table has, and the remark."""
        titles = [title for title, _ in self.columns]
        notes = [f"{title}: {words}." for title, words in self.notes.items() if title in titles]
        return " ".join([*notes, self.remark]).strip()

    def without(self, *titles: str) -> Section:
        """Return the table without these columns."""
        return self.with_columns([at for at, (title, _) in enumerate(self.columns) if title not in titles])

    def with_columns(self, places: Sequence[int]) -> Section:
        """Return the table with the columns at these positions, in this order."""
        columns = [self.columns[at] for at in places]
        return replace(self, columns=columns, rows=[[row[at] for at in places] for row in self.rows])


def sections(fleet: Fleet, most_rows: int, *, brief: bool = False) -> Iterator[Section]:
    """Yield the tables that have rows, with at most `most_rows` rows each. The last ones list the traces that
    are left out, wholly or in part.

    With `brief`, limits that are not known to be wrong are left out if others are. The rules of other tools
    are shown beside suggestions only: a number for runs that show only the least that they need is refuted by
    the next run.
    """
    listed = [one for one in fleet.workloads if one.is_limited or one.kills]
    wrong, others = limit_states.worst_first(listed)
    for one in (
        _kills(fleet),
        _code(fleet),
        _sigkills(fleet),
        _limits(*_shown(wrong, others, brief=brief)),
        _rules([one for one in (*wrong, *others) if one.suggestion.suggested_limit_bytes is not None]),
        _replays([*wrong, *others]),
        _evictors(fleet),
        _hosts(fleet),
        _broken("Left out, because they cannot be read", fleet, is_partial=False),
        _broken("Left out in part, because of a bug", fleet, is_partial=True),
    ):
        if one.rows or one.remark:
            more = one.more + max(len(one.rows) - most_rows, 0)
            yield replace(one, rows=one.rows[:most_rows], more=more)


def _shown(
    first: Sequence[Workload], others: Sequence[Workload], *, brief: bool
) -> tuple[Sequence[Workload], int]:
    """Return the workloads to list, and the number of workloads that are left out."""
    return (first, len(others)) if brief and first else ([*first, *others], 0)


def _kills(fleet: Fleet) -> Section:
    columns = (("kills", ">"), ("cause", "<"), ("hosts", ">"), ("last, UTC", "<"), ("workload", "<"))
    rows = [
        (
            units.count(one.count),
            visible(one.cause),
            units.count(one.hosts),
            minute(one.last),
            visible(one.workload),
        )
        for one in by_cause_and_workload(fleet.kills)
    ]
    return Section(KILLS, columns, rows)


def _code(fleet: Fleet) -> Section:
    columns = (("kills", ">"), ("hosts", ">"), ("workloads", ">"), ("last, UTC", "<"), ("function", "<"))
    rows = [
        (
            units.count(one.count),
            units.count(one.hosts),
            units.count(one.workloads),
            minute(one.last),
            function(one),
        )
        for one in fleet.code
    ]
    return Section("The code that grew most before the kills", columns, rows, wide="workloads")


def _sigkills(fleet: Fleet) -> Section:
    columns = (("processes", ">"), ("sender", "<"), ("hosts", ">"), ("last, UTC", "<"), ("workload", "<"))
    groups = by_sender_and_workload(fleet.sigkills or ())
    rows = [
        (
            units.count(one.count),
            sender_name(one.sender),
            units.count(one.hosts),
            minute(one.last),
            visible(one.workload),
        )
        for one in groups
    ]
    senders = dict.fromkeys(one.sender for one in groups if one.sender is not None)
    known = {one.name: one.does for name in senders if (one := known_sender(name)) is not None}
    remark = "" if not rows else " ".join(f"{name}: {does}." for name, does in known.items())
    return Section(SIGKILLS, columns, rows, remark=remark)


def _limits(workloads: Sequence[Workload], left_out: int) -> Section:
    columns = (
        *(("kills", ">"), ("limit", ">"), ("suggested", ">"), ("runs", ">")),
        *(("p50 / p90 / max", ">"), ("workload", "<")),
    )
    rows = [
        (
            units.count(one.kills),
            _limit(one),
            _suggested(one),
            units.count(one.runs),
            _peaks(one.peak_unreclaimable_bytes),
            visible(one.workload),
        )
        for one in workloads
    ]
    return Section(LIMITS, columns, rows, _LIMITS_NOTES, more=left_out)


def _rules(workloads: Sequence[Workload]) -> Section:
    columns = (
        *(("suggested", ">"), ("slack", ">"), ("expected", ">"), ("at risk", ">")),
        *(("VPA", ">"), ("KRR", ">"), ("workload", "<")),
    )
    rows = [
        (
            _suggested(one),
            units.size(one.suggestion.slack_bytes),
            _share(one.suggestion.expected_kills_per_run),
            _share(one.suggestion.highest_kills_per_run),
            units.size(one.vpa_limit_bytes),
            units.size(one.krr_limit_bytes),
            visible(one.workload),
        )
        for one in workloads
    ]
    heading = "Suggested limits, beside those of other rules"
    return Section(heading, columns, rows, _RULES_NOTES, wide="expected")


def _replays(workloads: Sequence[Workload]) -> Section:
    columns = (
        *(("at a limit of", ">"), ("died", ">"), ("lived", ">"), ("undisturbed", ">")),
        *(("not known", ">"), ("workload", "<")),
    )
    rows = [
        (
            f"{units.size(at.limit_bytes)}{_which(one, at.limit_bytes)}",
            units.count(at.killed),
            units.count(at.survived),
            units.count(at.undisturbed),
            units.count(at.unknown),
            visible(one.workload),
        )
        for one in workloads
        for at in one.replays
        if at.unknown < at.lives and not _is_known_otherwise(one, at)
    ]
    return Section("The runs, replayed at other limits", columns, rows, _REPLAYS_NOTES, wide="undisturbed")


def _is_known_otherwise(one: Workload, at: Replayed) -> bool:
    """Return whether it is the present limit of a single run, or one that only shows more of the need."""
    if at.limit_bytes == one.limit_bytes:
        return at.lives == 1
    return at.limit_bytes == one.suggestion.trial_limit_bytes


def _which(one: Workload, limit_bytes: int) -> str:
    if limit_bytes == one.suggestion.suggested_limit_bytes:
        return " (suggested)"
    return " (present)" if limit_bytes == one.limit_bytes else ""


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
        if not is_its_own(one)
    ]
    own = sum(one.evicted_bytes or 0 for one in fleet.evictors if is_its_own(one))
    remark = ""
    if own and rows:
        remark = f"{units.size(own)} more was evicted by tasks of the workload that it was charged to."
    elif own:
        remark = f"{units.size(own)} was evicted, all by tasks of the workload that it was charged to."
    return Section("Who evicts whom", columns, rows, remark=remark, wide="cause")


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


def _broken(title: str, fleet: Fleet, *, is_partial: bool) -> Section:
    listed = [one for one in fleet.broken if one.is_partial == is_partial]
    return Section(title, (("", "<"),), [(visible(f"{one.path}: {one.why}"),) for one in listed])


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
    if limit_states.is_only_least(one):
        return least_in_words(one)
    better = limit_states.better_limit_bytes(one)
    return "" if better is None else units.size(better)


def _share(rate: float | None) -> str:
    if rate is None:
        return units.UNKNOWN
    return f"< {100 * _LEAST_SHARE:g} %" if 0 < rate < _LEAST_SHARE else f"{100 * rate:.2g} %"
