"""The kills that concern a cgroup, and the history of the kills of each name.

A kill concerns a cgroup if it was for its limit, for the limit of a cgroup below it, or of a task in one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import TYPE_CHECKING

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.kill import Cause, LimitOwner, OomReport
from tracer.errors import TracerError
from tracer.kernel.cgroups import containers
from tracer.kernel.cgroups.containers import standing

if TYPE_CHECKING:
    import pandas as pd


def newest(reports: Sequence[OomReport]) -> OomReport:
    """Return the last kill whose victim is known or that ended in a panic, or else the last of all.

    An excerpt, such as a pasted log, often ends after the first line of a report.
    """
    return next((report for report in reversed(reports) if _has_end(report)), reports[-1])


def _has_end(report: OomReport) -> bool:
    return bool(report.victims) or (report.kernel_log is not None and report.kernel_log.panicked)


def chosen(trace: TraceTables, pattern: str | int | None) -> list[int] | None:
    """Return the ids of the cgroups that fit `pattern` (`core.naming.select`), or None, which stands for all,
    without a pattern.

    Kills take long to read, so a caller asks this first. TracerError if no cgroup fits.
    """
    return None if pattern is None else naming.select(trace, pattern)


def recorded_kills_of(
    trace: TraceTables, reports: Iterable[OomReport], cgroup_ids: Sequence[int] | None
) -> list[OomReport]:
    """Return the kills that concern one of these cgroups; None stands for all."""
    return list(reports) if cgroup_ids is None else concerning(trace, reports, cgroup_ids)


def with_kills(trace: TraceTables, reports: Iterable[OomReport]) -> frozenset[int]:
    """Return the ids of the cgroups whose limit led to one of these kills, or in which a task was killed."""
    found = set[int | None]()
    for report in reports:
        for place_id, path in _places(report):
            if place_id is None and path is not None and report.time is not None:
                found.add(trace.places.id_at(path, report.time.value))
            else:
                found.add(place_id)
    return frozenset(number for number in found if number is not None)


def spares_any(trace: TraceTables, reports: Iterable[OomReport]) -> bool:
    """Return whether the trace has data of a cgroup without a kill."""
    return not with_kills(trace, reports).issuperset(naming.with_data(trace))


def concerning(
    trace: TraceTables, reports: Iterable[OomReport], cgroup_ids: Sequence[int]
) -> list[OomReport]:
    """Return the kills that concern one of these cgroups."""
    return KillsByPlace(trace, reports).concerning(cgroup_ids, naming.members_of(trace, cgroup_ids))


class KillsByPlace:
    """Kills by the cgroups that they concern: a question about one cgroup passes over its own kills only.

    A kill that only the kernel log has may have no id of its cgroup: it is found by the path.
    """

    def __init__(self, trace: TraceTables, reports: Iterable[OomReport]) -> None:
        self._trace, self._reports = trace, list(reports)
        self._by_id: dict[int, list[int]] = {}
        self._by_path: dict[str, list[int]] = {}  # of the cgroup and of all above it
        for position, report in enumerate(self._reports):
            for place_id, path in _places(report):
                if place_id is not None:
                    self._by_id.setdefault(place_id, []).append(position)
                elif path is not None:
                    for above in _and_above(path):
                        self._by_path.setdefault(above, []).append(position)

    def concerning(self, cgroup_ids: Sequence[int], members: Int64s) -> list[OomReport]:
        """Return the kills that concern one of these cgroups; `members` are these and all below them."""
        lives = [self._trace.places.lives.life_for(number) for number in cgroup_ids]
        # If only some lives of a name are wanted, a path does not show to which life a kill belongs.
        paths = {self._trace.places.label_of(life.cgroup_id) for life in lives if len(lives) == life.runs}
        found = {position for number in members.tolist() for position in self._by_id.get(number, ())}
        found |= {position for path in paths for position in self._by_path.get(path.rstrip("/"), ())}
        return [self._reports[position] for position in sorted(found)]


def positions_of_logged(reports: Iterable[OomReport], pattern: str) -> list[int]:
    """Return the positions of the kills of a kernel log that concern the cgroups that fit `pattern`.

    The cgroups are those whose paths, containers and pods the log names. TracerError if none fits.
    """
    places: dict[str, naming.Place] = {}
    paths_of: list[tuple[str, ...]] = []
    for report in reports:
        owner = report.limit_owner
        paths = [path for _, path in _places(report) if path is not None]
        for path in paths:
            reference = containers.identify(path)
            container_id = None if reference is None else reference.container_id
            is_owner = path == owner.cgroup
            name = owner.container if is_owner else None
            if name is not None or path not in places:
                pod, namespace = (owner.pod, owner.namespace) if is_owner else (None, None)
                places[path] = naming.Place(0, path, name, container_id, pod, namespace)
        paths_of.append(tuple(intern(path) for path in dict.fromkeys(paths)))
    listed = list(places.values())
    found = {listed[position].path for position in naming.fitting(listed, pattern)}
    if not found:
        known = naming.nearest(naming.typed_names(reversed(listed)), pattern)
        raise TracerError(f"no kill in this log is of {pattern!r}; it has {known}")
    found = {path.rstrip("/") for path in found}
    below = {path for path in places if not found.isdisjoint(_and_above(path))}
    return [at for at, paths in enumerate(paths_of) if not below.isdisjoint(paths)]


def _places(report: OomReport) -> Iterable[tuple[int | None, str | None]]:
    """Yield (id, path) of the limit owner, and of each victim's cgroup."""
    yield report.limit_owner.cgroup_id, report.limit_owner.cgroup
    yield from ((victim.cgroup_id, victim.cgroup) for victim in report.victims)


def _and_above(path: str) -> Iterator[str]:
    """Yield the path and every path above it, without a slash at the end."""
    path = path.rstrip("/") + "/"
    yield from (path[: slash.start()] for slash in re.finditer("/+", path))


_Moment = tuple["pd.Timestamp | None", int | None, str | None]
"""The time of a kill, its time since boot in ns, and its date in a log without a time zone."""


@dataclass(slots=True)
class History:
    """The kills for the limit of one name, in order of time; or those for one kind of shortage, if no
    cgroup's limit was hit.

    The name is a container (with its pod, and the path inside it), or the path of a cgroup: `owner` is that
    of the first kill. `kills` is their number. `have_victims`: every kill has a victim. `may_be_confined`: as
    `KernelLogPlace.may_be_confined`, for any of them. A log may have a hundred thousand names.
    """

    constraint: str
    owner: LimitOwner
    _first: _Moment
    _last: _Moment
    kills: int = 0
    have_victims: bool = True
    may_be_confined: bool = False
    _causes: dict[Cause, int] = field(default_factory=dict)

    def add(self, report: OomReport) -> None:
        """Count one more kill."""
        cause = report.verdict.cause
        self._last = _moment(report)
        self.kills += 1
        self._causes[cause] = self._causes.get(cause, 0) + 1
        self.have_victims = self.have_victims and bool(report.victims)
        place = report.kernel_log
        self.may_be_confined = self.may_be_confined or (place is not None and place.may_be_confined)

    @property
    def causes(self) -> Mapping[Cause, int]:
        """Return the number of kills by cause, the most frequent first."""
        return dict(sorted(self._causes.items(), key=lambda item: -item[1]))

    @property
    def seconds(self) -> float | None:
        """Return the time from the first kill to the last; None if their times are not known.

        Also None if the last time is before the first: the machine was rebooted in between, or the log does
        not have the order of time. The times since boot may be of two machines: dates are preferred.
        """
        first, last = self._first, self._last
        if first[0] is not None and last[0] is not None:
            passed_s = (last[0] - first[0]).total_seconds()
        elif (begin := _date(first[2])) is not None and (end := _date(last[2])) is not None:
            passed_s = (end - begin).total_seconds()
        elif first[1] is not None and last[1] is not None:
            passed_s = (last[1] - first[1]) / 1e9
        else:
            return None
        return None if passed_s < 0 else passed_s


def histories(reports: Iterable[OomReport]) -> list[History]:
    """Return one history for each name whose limit was hit, the one with the most kills first."""
    found: dict[tuple[str | None, ...], History] = {}
    for report in reports:
        owner = report.limit_owner
        path = owner.cgroup if owner.container is None else standing(owner.cgroup or "").below
        constraint = None if report.constraint in ("memcg", "unknown") else report.constraint
        key = (constraint, owner.container, owner.pod, path)
        if key not in found:
            moment = _moment(report)
            found[key] = History(report.constraint, owner, moment, moment)
        found[key].add(report)
    return sorted(found.values(), key=lambda history: -history.kills)


def _moment(report: OomReport) -> _Moment:
    place = report.kernel_log
    return report.time, *((None, None) if place is None else (place.since_boot_ns, place.wall))


def _date(wall: str | None) -> datetime | None:
    """Return a date without a time zone; one without a year is of a leap year."""
    if wall is None:
        return None
    for date, form in ((f"2000 {wall}", "%Y %b %d %H:%M:%S"), (wall, "%a %b %d %H:%M:%S %Y")):
        with contextlib.suppress(ValueError):
            return datetime.strptime(date, form)
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(wall.replace(",", ".")).replace(tzinfo=None)
    return None
