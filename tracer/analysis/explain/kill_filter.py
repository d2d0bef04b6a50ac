"""Many kills: those that concern what a person names; how often each name was killed, for which causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tracer.analysis.core import hierarchy, naming
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.conclusions import Cause
from tracer.analysis.results.kill import OomReport
from tracer.errors import TracerError
from tracer.kernel.cgroups import containers


@dataclass(frozen=True, slots=True)
class History:
    """The kills for the limit of one name, in order: its container (and pod) or the path of its cgroup, both
    None where no cgroup's limit was hit, or it is not known whose. `seconds`: from the first to the last;
    None where no times are known. `causes`: the most frequent first."""

    container: str | None
    pod: str | None
    cgroup: str | None
    kills: tuple[OomReport, ...]
    seconds: float | None
    causes: Mapping[Cause, int]


def histories(reports: Iterable[OomReport]) -> list[History]:
    """One for each name whose limit was hit, the one with the most kills first."""
    of_name: dict[tuple[str | None, ...], list[OomReport]] = {}
    for report in reports:
        owner = report.limit_owner
        key = (owner.container, owner.pod, None if owner.container is not None else owner.cgroup)
        of_name.setdefault(key, []).append(report)
    found = [_history(kills) for kills in of_name.values()]
    return sorted(found, key=lambda one: -len(one.kills))


def newest(reports: Sequence[OomReport]) -> OomReport:
    """Return the last kill whose victim is known, or else the last of all.

    A log that was cut, as a pasted one is, often ends in a report of which only the first line is there.
    """
    return next((report for report in reversed(reports) if report.victims), reports[-1])


def of_trace(
    trace: TraceTables, reports: Iterable[OomReport], pattern: str | int | None = None
) -> list[OomReport]:
    """Those for the limit of a cgroup that fits `pattern` (`names.select`), or of one below, or of a task in
    one. A kill of a life that the trace does not know goes by its path. TracerError where nothing fits."""
    if pattern is None:
        return list(reports)
    ids = naming.select(trace, pattern)
    return concerning(trace, reports, ids)


def concerning(
    trace: TraceTables, reports: Iterable[OomReport], cgroup_ids: Sequence[int]
) -> list[OomReport]:
    """Those for the limit of one of these cgroups, or of one below, or of a task in one."""
    members = set(hierarchy.members_of(trace, cgroup_ids).tolist())
    lives = [trace.places.lives.life_for(number) for number in cgroup_ids]
    # Of one life alone a kill that no id tells of is not known to be of it.
    paths = {trace.places.label_of(life.cgroup_id) for life in lives if len(lives) == life.runs}
    return [
        report
        for report in reports
        if any(
            place_id in members if place_id is not None else _is_below(path, paths)
            for place_id, path in _places(report)
        )
    ]


def of_log(reports: Sequence[OomReport], pattern: str) -> list[OomReport]:
    """The same of a kernel log: what fits is found among the paths, containers and pods that it names."""
    places: dict[str, naming.Place] = {}
    for report in reports:
        owner = report.limit_owner
        for _, path in _places(report):
            if path is None:
                continue
            reference = containers.identify(path)
            container_id = None if reference is None else reference.container_id
            name = owner.container if path == owner.cgroup else None
            if name is not None or path not in places:
                places[path] = naming.Place(0, path, name, container_id)
    listed = list(places.values())
    found = {listed[position].path for position in naming.fitting(listed, pattern)}
    if not found:
        known = sorted({name for place in listed for name in (place.container, place.path) if name})
        raise TracerError(f"no kill in this log is of {pattern!r}; it has {naming.nearest(known, pattern)}")
    return [report for report in reports if any(_is_below(path, found) for _, path in _places(report))]


def _places(report: OomReport) -> Iterable[tuple[int | None, str | None]]:
    """(id, path) of whose limit it was, and of each victim's cgroup."""
    yield report.limit_owner.cgroup_id, report.limit_owner.cgroup
    yield from ((victim.cgroup_id, victim.cgroup) for victim in report.victims)


def _is_below(path: str | None, paths: Iterable[str]) -> bool:
    return path is not None and any(
        (path.rstrip("/") + "/").startswith(one.rstrip("/") + "/") for one in paths
    )


def _history(kills: Sequence[OomReport]) -> History:
    owner = kills[0].limit_owner
    causes = Counter(kill.verdict.cause for kill in kills)
    return History(
        container=owner.container,
        pod=owner.pod,
        cgroup=owner.cgroup,
        kills=tuple(kills),
        seconds=_seconds(kills[0], kills[-1]),
        causes=dict(causes.most_common()),
    )


def _seconds(first: OomReport, last: OomReport) -> float | None:
    if first.time is not None and last.time is not None:
        return (last.time - first.time).total_seconds()
    begin, end = (
        None if kill.kernel_log is None else kill.kernel_log.since_boot_ns for kill in (first, last)
    )
    # Less than before: the machine was started anew in between.
    return None if begin is None or end is None or end < begin else (end - begin) / 1e9
