"""Many kills in words: the number of kills of each name, and the cells of a line for each kill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypedDict, TypeVar

from tracer import units
from tracer.analysis.explain.kill_filter import History, histories
from tracer.analysis.results.forms import as_json
from tracer.analysis.results.kill import Cause, Confidence, LimitOwner, OomReport
from tracer.kernel.cgroups.containers import short_id, standing
from tracer.packed import Packed
from tracer.render.words import places
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import short_name, shown_time

T = TypeVar("T")

_MOST_NAMES: Final = 4
_COLUMNS: Final = (
    *(("kill", ">"), ("time", "<"), ("limit", ">"), ("cause", "<"), ("sure", "<")),
    *(("killed", "<"), ("run", ">"), ("cgroup", "<")),
)
_SHORT_OF: Final = {"cpuset": "nodes of a cpuset", "mempolicy": "nodes of a policy"}
"""Constraint -> the part of the machine that was out of memory, if it was not the whole machine."""


def _short_of(constraint: str, *, may_be_confined: bool) -> str:
    whole = "the machine or some nodes" if may_be_confined else "the whole machine"
    return _SHORT_OF.get(constraint, whole)


_DATE_CELLS: Final = len("2026-01-01 ")
_SECOND_CELLS: Final = len("2026-01-01 00:00:00")
_RUN: Final = 6
"""The position of the column of runs, which is shown only if a name has several lives."""


class KillTable(NamedTuple):
    """A table with a line for each kill. `columns`: (title, alignment `<` or `>`) of each. `day`: the date of
    all kills; None if they have no common date."""

    columns: tuple[tuple[str, str], ...]
    rows: Iterator[tuple[str, ...]]
    day: str | None


def table(reports: Iterable[OomReport]) -> KillTable:
    """Return the table of these kills, which are read once."""
    kept, days, have_runs = Packed[tuple[str, ...]](), set[str | None](), False
    for report in reports:
        owner = report.limit_owner
        days.add(None if report.time is None else shown_time(report.time).partition(" ")[0])
        have_runs = have_runs or (owner.runs or 1) > 1
        kept.append(
            (
                str(report.kill_id),
                _when(report),
                units.limit(owner.limit_bytes) if _has_owner(report.constraint) else "",
                report.verdict.cause,
                report.verdict.confidence,
                _killed(report),
                str(owner.run) if (owner.runs or 1) > 1 else "",
                _where(report),
                "" if report.time is None else "dated",
            )
        )
    day = days.pop() if len(days) == 1 else None
    shown = (_shown(cells, is_one_day=day is not None, have_runs=have_runs) for cells in kept)
    return KillTable(_COLUMNS if have_runs else _without_run(_COLUMNS), shown, day)


def _shown(cells: tuple[str, ...], *, is_one_day: bool, have_runs: bool) -> tuple[str, ...]:
    """Return the cells of a line, with its time as short as the dates of all kills allow."""
    number, when, *rest, dated = cells
    if dated:
        when = when[_DATE_CELLS:] if is_one_day else when[:_SECOND_CELLS]
    return (number, when, *rest) if have_runs else _without_run((number, when, *rest))


def summary(reports: Iterable[OomReport]) -> Iterator[str]:
    """Yield a sentence for each name with kills, the name with the most kills first."""
    found = histories(reports)
    for history in found[:_MOST_NAMES]:
        yield _how_often(history)
    rest = found[_MOST_NAMES:]
    if rest:
        kills = sum(history.kills for history in rest)
        happened = _happened(all(history.have_victims for history in rest))
        yield f"and {units.count(len(rest))} more, {happened} {units.times(kills)} in all."


class ListedKill(TypedDict):
    """A kill in `explain --list --json`: `pid` and `comm` are of the first of its `victims`."""

    kill_id: int
    time: str | None
    cgroup: str | None
    container: str | None
    pod: str | None
    run: int | None
    limit_bytes: int | None
    pid: int | None
    comm: str | None
    victims: int
    cause: Cause
    confidence: Confidence


def to_dict(report: OomReport) -> ListedKill:
    """Return the object of a kill in `explain --list --json`."""
    owner, first = report.limit_owner, next(iter(report.victims), None)
    return {
        "kill_id": report.kill_id,
        "time": as_json(report.time),
        "cgroup": owner.cgroup,
        "container": owner.container,
        "pod": owner.pod,
        "run": owner.run,
        "limit_bytes": owner.limit_bytes,
        "pid": None if first is None else first.pid,
        "comm": None if first is None else first.comm,
        "victims": len(report.victims),
        "cause": report.verdict.cause,
        "confidence": report.verdict.confidence,
    }


def _without_run(cells: tuple[T, ...]) -> tuple[T, ...]:
    return cells[:_RUN] + cells[_RUN + 1 :]


def _how_often(history: History) -> str:
    """Return `container crasher: killed 7 times in 27 s, the same cause each time (anon_growth).`"""
    count, causes, happened = history.kills, history.causes, _happened(history.have_victims)
    if count == 1:
        return f"{_name(history)}: {happened} once ({next(iter(causes))})."
    span = "" if history.seconds is None else f" in {units.duration(history.seconds)}"
    if len(causes) == 1:
        why = f"the same cause each time ({next(iter(causes))})"
    else:
        why = "the causes: " + ", ".join(f"{cause} {units.times(times)}" for cause, times in causes.items())
    return f"{_name(history)}: {happened} {units.times(count)}{span}, {why}."


def _happened(have_victims: bool) -> str:
    """Return `killed`, or `out of memory` if a report has no victim: maybe no process could be killed."""
    return "killed" if have_victims else "out of memory"


def others(count: int) -> str:
    """Return `1 other` or `6 others`."""
    return "1 other" if count == 1 else f"{units.count(count)} others"


def earlier(count: int) -> str:
    """Return `1 earlier kill` or `22 earlier kills`."""
    return f"{units.count(count)} earlier {'kill' if count == 1 else 'kills'}"


def _name(history: History) -> str:
    owner = history.owner
    if not _has_owner(history.constraint):
        return _short_of(history.constraint, may_be_confined=history.may_be_confined)
    if owner.container is None and owner.pod is None:
        unknown = "unknown cgroups" if history.constraint == "memcg" else "not known whose limit"
        return unknown if owner.cgroup is None else visible(owner.cgroup)
    pod = "" if owner.container is None or owner.pod is None else f", pod {visible(owner.pod)}"
    return f"{'' if owner.container is None else 'container '}{_within(owner)}{pod}"


def _has_owner(constraint: str) -> bool:
    return constraint in ("memcg", "unknown")


def _where(report: OomReport) -> str:
    owner = report.limit_owner
    if not _has_owner(report.constraint):
        place = report.kernel_log
        return _short_of(report.constraint, may_be_confined=place is not None and place.may_be_confined)
    if owner.container is None and owner.pod is None:
        return units.UNKNOWN if owner.cgroup is None else visible(owner.cgroup)
    pod = "" if owner.container is None or owner.pod is None else f" of pod {visible(owner.pod)}"
    return f"{_within(owner)}{pod}"


def _within(owner: LimitOwner) -> str:
    """Return the container or the pod, with the path of the cgroup inside it, and the container around it."""
    place = standing(owner.cgroup or "")
    name = f"pod {visible(str(owner.pod))}" if owner.container is None else visible(short_id(owner.container))
    around = "" if place.around is None else f" in {visible(short_id(place.around))}"
    return f"{name}{visible(place.below)}{around}"


def _killed(report: OomReport) -> str:
    if not report.victims:
        panicked = report.kernel_log is not None and report.kernel_log.panicked
        return "none: panic" if panicked else units.UNKNOWN
    first, *rest = report.victims
    return short_name(first) + (f" +{units.count(len(rest))}" if rest else "")


def _when(report: OomReport) -> str:
    """Return the date and time to the millisecond, or else the moment that the log has."""
    if report.time is None:
        return places.logged_moment(report.kernel_log)
    return f"{report.time:%Y-%m-%d %H:%M:%S}.{report.time.microsecond // 1000:03}"
