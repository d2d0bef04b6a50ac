"""The decisions of the OOM killer in a trace: from its table `oom`, and from its kernel log alone.

A trace of the whole machine covers every kill. A trace of some cgroups covers kills at the limit of one of
them, kills of a task in one of them, and kills for which no limit was hit. The probes select the same kills
(bpf/oom.bpf.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import NO_ID, integers, utc_times
from tracer.analysis.core.lookup.log_reports import Logged
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.kernel_log import matching
from tracer.analysis.kernel_log.matching import APART_AT_MOST_NS
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.stored_names import stored_text

_COLUMNS: Final = ("kill_id", "cgroup_id", "limit_owner_cgroup_id")


@dataclass(frozen=True, slots=True)
class LogKill:
    """A decision that only the log has.

    `owner_id` is the cgroup whose limit was hit, `victim_ids` the cgroup of each victim; `NO_ID`: not known.
    """

    kill_id: int
    time_ns: int
    report: LogReport
    owner_id: int
    victim_ids: tuple[int, ...]


def missed(trace: TraceTables) -> list[LogKill]:
    """Return the decisions that only the log has, in order of time; their numbers follow those of the table
    `oom`."""
    found = matching.unmatched(trace.oom, trace.logged)
    if not found:
        return []
    scope = _Scope(trace)
    kills = [kill for one in found if scope.has(kill := _kill(trace, one))]
    first = int(integers(trace.oom["kill_id"]).max(initial=0)) + 1
    kills.sort(key=lambda kill: kill.time_ns)
    return [replace(kill, kill_id=number) for number, kill in enumerate(kills, start=first)]


def victims(trace: TraceTables) -> pd.DataFrame:
    """Return a row for each victim of all decisions, indexed by time.

    `kill_id`, `cgroup_id` (the victim's) and `limit_owner_cgroup_id` are as in `oom`.
    """
    recorded = trace.oom[list(_COLUMNS)].astype("Int64")
    rows = [
        (kill.time_ns, kill.kill_id, victim_id, kill.owner_id)
        for kill in missed(trace)
        for victim_id in kill.victim_ids
    ]
    if not rows:
        return recorded
    cells = np.array(rows, dtype=np.int64)
    index = utc_times(np.ascontiguousarray(cells[:, 0])).set_names("time")
    added = pd.DataFrame(dict(zip(_COLUMNS, cells[:, 1:].T, strict=True)), index=index).astype("Int64")
    added = added.mask(added == NO_ID)
    return pd.concat([recorded, added]).sort_index(kind="stable")


def _kill(trace: TraceTables, one: Logged) -> LogKill:
    """Return the decision of a report.

    On a busy machine the kernel stamps the kill, or the recorder reads it, when victim and cgroup are already
    gone. So the victim is the process with this pid that is nearest in time, and the kill belongs to the life
    of its cgroup.
    """
    report, places = one.report, trace.places
    time_ns = min(one.killed_ns[kill.pid] for kill in report.kills)
    victims = [trace.processes.cgroup_at(kill.pid, time_ns, APART_AT_MOST_NS) for kill in report.kills]
    path = None if report.task_memcg is None else stored_text(report.task_memcg)
    if path is not None and path != places.path_of(victims[0]):
        told = places.id_at(path, time_ns)
        victims[0] = victims[0] if told is None else told
    if victims[0] is not None:
        made_ns, removed_ns = places.lifetime_ns(victims[0])
        time_ns = min(max(time_ns, made_ns), removed_ns)
    owner = None if report.oom_memcg is None else places.id_at(stored_text(report.oom_memcg), time_ns)
    ids = tuple(NO_ID if victim is None else victim for victim in victims)
    return LogKill(0, time_ns, report, NO_ID if owner is None else owner, ids)


class _Scope:
    """The kills that a trace covers."""

    def __init__(self, trace: TraceTables) -> None:
        self._roots = {path.rstrip("/") for path in (trace.meta.get("filters") or {}).get("cgroups") or ()}
        self._is_all = not self._roots
        traced = [] if self._is_all else naming.with_data(trace)
        self._ids = set(traced)
        self._roots |= {path.rstrip("/") for path in map(trace.places.path_of, traced) if path is not None}

    def has(self, kill: LogKill) -> bool:
        """Return True if the trace covers this kill."""
        report = kill.report
        if self._is_all or report.constraint not in ("memcg", "unknown"):
            return True
        paths = (path for path in (report.oom_memcg, report.task_memcg) if path is not None)
        return bool(self._ids & {kill.owner_id, *kill.victim_ids}) or any(map(self._is_below_root, paths))

    def _is_below_root(self, path: str) -> bool:
        return any(above in self._roots for above in _and_above(stored_text(path)))


def _and_above(path: str) -> Iterable[str]:
    """Yield the path and every path above it, up to the empty path of the root."""
    path = path.rstrip("/")
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield path
