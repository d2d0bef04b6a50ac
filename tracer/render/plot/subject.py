"""The subject of a picture: a cgroup, and the kill that is second 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.tables import start_ns
from tracer.analysis.explain import kill_filter, postmortem
from tracer.analysis.results.kill import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views import focus
from tracer.errors import TracerError, UsageError
from tracer.render.words import places
from tracer.render.words.escape import fitted

_NAME_CELLS: Final = 72
_MOST_NAMED: Final = 3
Seconds = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Subject:
    """A cgroup of a trace, and a kill that concerns it; `kill` is None without such a kill."""

    trace: AnalysedTrace
    cgroup_id: int
    kill: OomReport | None

    @cached_property
    def origin(self) -> pd.Timestamp:
        """Return the time of the kill, else the time at which the trace began."""
        if self.kill is not None and self.kill.time is not None:
            return self.kill.time
        return pd.Timestamp(start_ns(self.trace), tz="UTC")

    @property
    def since(self) -> str:
        """Return the name of the event at second 0. Names in it are not escaped."""
        if self.kill is None:
            return "since the trace began"
        victims = self.kill.victims
        if not victims:
            return "before and after the OOM kill"
        more = f" and {len(victims) - 1} more" if len(victims) > 1 else ""
        return f"before and after the OOM kill of {victims[0].comm} (pid {victims[0].pid}){more}"

    @property
    def place(self) -> str:
        """Return the escaped name of the cgroup for a title."""
        look_up = self.trace.places
        life = look_up.lives.life_for(self.cgroup_id)
        name = places.place(
            look_up.label_of(self.cgroup_id),
            look_up.container_of(self.cgroup_id)[0],
            run=life.run,
            runs=life.runs,
        )
        return fitted(name, _NAME_CELLS)

    def seconds(self, times: pd.DatetimeIndex) -> Seconds:
        """Return the seconds from the origin to each of the times."""
        return np.asarray((times - self.origin).total_seconds(), dtype=np.float64)


def chosen(
    trace: AnalysedTrace, reports: Sequence[OomReport], cgroup: str | int | None, kill: int | None
) -> Subject:
    """Return the subject that a caller named by a pattern of `naming.resolve`, the number of a kill, or both.

    `reports` are all kills of the trace. Without `kill`, the subject has the newest kill that concerns the
    cgroup; without `cgroup`, the cgroup whose limit led to the kill. If both are missing and the trace has no
    kill, it has the first cgroup of `focus.ranked`. Raises UsageError for a kill that does not exist or does
    not concern the cgroup, and for a pattern that fits cgroups of several names; TracerError for a pattern
    that fits no cgroup.
    """
    if kill is not None and kill not in {report.kill_id for report in reports}:
        raise postmortem.no_such_kill(kill, sorted(report.kill_id for report in reports))
    wanted = [report for report in reports if kill in (None, report.kill_id)]
    if cgroup is None:
        of_limits = [report for report in wanted if report.limit_owner.cgroup_id is not None]
        if of_limits:
            report = kill_filter.newest(of_limits)
            assert report.limit_owner.cgroup_id is not None
            return Subject(trace, report.limit_owner.cgroup_id, report)
        if kill is not None:
            raise TracerError(
                f"kill {kill} was for no limit of a cgroup in this trace: give a cgroup as well"
            )
        ids, _ = focus.to_show(trace, 1)
        if not ids:
            raise TracerError(f"{trace.path} has no data of any cgroup")
        return Subject(trace, ids[0], kill_filter.newest(wanted) if wanted else None)
    cgroup_id = _named(trace, cgroup)
    concerned = kill_filter.concerning(trace, wanted, [cgroup_id])
    if kill is not None and not concerned:
        raise UsageError(f"kill {kill} does not concern the cgroup {cgroup!r}")
    return Subject(trace, cgroup_id, kill_filter.newest(concerned) if concerned else None)


def _named(trace: AnalysedTrace, cgroup: str | int) -> int:
    """Return the cgroup to show among the lives of the one name that fits a pattern."""
    ids = naming.select(trace, cgroup)
    names = sorted({trace.places.label_of(number) for number in ids})
    if len(names) > 1:
        some = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
        raise UsageError(f"{cgroup!r} fits {len(names)} cgroups, and a picture has one: {some}")
    return focus.lives_to_show(trace, ids, most=1)[0]
