"""The kills of each name: how many, over which time, and for which causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tracer.analysis.results.conclusions import Cause
from tracer.analysis.results.kill import OomReport
from tracer.kernel.cgroups.containers import standing


@dataclass(frozen=True, slots=True)
class History:
    """The kills for the limit of one name, in order of time; or those for one kind of shortage, if no
    cgroup's limit was hit.

    The name is a container (with its pod, and the path inside it), or the path of a cgroup. `seconds`: from
    the first kill to the last; None if their times are not known. `causes`: the number of kills by cause, the
    most frequent first.
    """

    kills: tuple[OomReport, ...]
    seconds: float | None
    causes: Mapping[Cause, int]


def histories(reports: Iterable[OomReport]) -> list[History]:
    """Return one history for each name whose limit was hit, the one with the most kills first."""
    kills_of: dict[tuple[str | None, ...], list[OomReport]] = {}
    for report in reports:
        owner = report.limit_owner
        path = owner.cgroup if owner.container is None else standing(owner.cgroup or "").below
        constraint = None if report.constraint in ("memcg", "unknown") else report.constraint
        key = (constraint, owner.container, owner.pod, path)
        kills_of.setdefault(key, []).append(report)
    found = [_history(kills) for kills in kills_of.values()]
    return sorted(found, key=lambda history: -len(history.kills))


def _history(kills: Sequence[OomReport]) -> History:
    causes = Counter(kill.verdict.cause for kill in kills)
    return History(
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
    # A later time since boot that is less: the machine was rebooted in between.
    return None if begin is None or end is None or end < begin else (end - begin) / 1e9
