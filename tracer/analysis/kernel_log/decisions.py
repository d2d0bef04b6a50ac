"""The decisions of the OOM killer in a trace: its table `oom`, matched with the reports of its kernel log.

Both have a time, and the victim's pid in the initial pid namespace. The pairs nearest in time are matched
first, each report and each kill once. The two times of a pair may be as far apart as the two clocks can be,
and the report as late as a recorder that waits for memory (capture/rows/kmsg_stream.py). A decision of the
OOM killer has one report, with a kill line for each victim.

A trace of the whole machine covers every kill. A trace of some cgroups covers kills at the limit of one of
them, kills of a task in one of them, and kills for which no limit was hit. The probes select the same kills
(bpf/oom.bpf.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import NO_ID, integers, times_ns, utc_times
from tracer.analysis.core.lookups import Logged, LogKill
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg.report.log_report import LogReport, Section
from tracer.stored_names import stored_text

APART_AT_MOST_NS: Final = 2_000_000_000
"""The greatest distance between the time of the log and that of the probes."""
LATE_AT_MOST_NS: Final = 60_000_000_000
"""The greatest delay of the log's time after the probes' time. If the kill is the recorder's first record of
the log, its time is the time of the wake-up, which a machine without memory delays by seconds. If a pid is
used again within this time, and killed again, each kill has the report nearest to it."""

_LOSS_NEAR_NS: Final = 1_000_000_000
_OF_A_DUMP: Final[frozenset[Section]] = frozenset({"header", "counters", "summary"})
"""The sections that dump_header prints with any settings (mm/oom_kill.c)."""

_NOT_READ: Final = "the trace is of a version that did not read the kernel log"
_NO_LINE: Final = (
    "the kernel logged nothing on this kill while the trace was recorded, "
    "as when the victim was already exiting"
)
_RATE_LIMITED: Final = "only the line of the kill is there: the kernel prints at most 10 reports in 5 s"
_NO_TASKS: Final = "the table of tasks is missing, as with vm.oom_dump_tasks=0"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The part of a report that is in the log; `missing` names the absent parts and the reason ("": none)."""

    state: KernelLog
    missing: str


def match(oom: pd.DataFrame, logged: Sequence[Logged]) -> dict[int, Logged]:
    """Return kill_id -> its report; `oom` and `logged` are those of one trace."""
    pairs = sorted(_pairs(oom, logged))
    found: dict[int, int] = {}
    taken = set[int]()
    for _, kill_id, number in pairs:
        if kill_id not in found and number not in taken:
            found[kill_id] = number
            taken.add(number)
    return {kill_id: logged[number] for kill_id, number in found.items()}


def unmatched(oom: pd.DataFrame, logged: Sequence[Logged]) -> list[Logged]:
    """Return the reports of kills that `oom` does not have.

    A report is left out if any of its victims is in `oom`, even if the kill has another report: the log can
    have a group kill in several pieces.
    """
    seen = {number for _, _, number in _pairs(oom, logged)}
    return [one for number, one in enumerate(logged) if one.shown.has_kill and number not in seen]


def _pairs(oom: pd.DataFrame, logged: Sequence[Logged]) -> Iterator[tuple[int, int, int]]:
    """Yield (distance in ns, kill_id, number of the report) of all pairs that may belong together."""
    kills = zip(
        integers(oom["kill_id"]).tolist(), integers(oom["pid"]).tolist(), times_ns(oom).tolist(), strict=True
    )
    by_pid: dict[int | None, list[tuple[int, int]]] = {}
    for number, one in enumerate(logged):
        for pid, killed_ns in one.killed_ns.items():
            by_pid.setdefault(pid, []).append((number, killed_ns))
    for kill_id, pid, marked_ns in kills:
        for number, killed_ns in by_pid.get(pid, ()):
            late_ns = killed_ns - marked_ns
            if -APART_AT_MOST_NS <= late_ns <= LATE_AT_MOST_NS:
                yield abs(late_ns), kill_id, number


def coverage(trace: TraceTables, time_ns: int, report: LogReport | None) -> Coverage:
    """Return the part of the report on a kill at that time that is in the log."""
    lost = trace.losses.near("kernel_log", time_ns - _LOSS_NEAR_NS, time_ns + _LOSS_NEAR_NS)
    overrun = (
        f"{lost} records of the kernel log around it were overwritten before they were read" if lost else None
    )
    if report is None:
        state = trace.meta.get("kernel_log")
        if state is None:
            return Coverage("missing", _NOT_READ)
        return Coverage(
            "missing", f"it could not be read: {state}" if state != "read" else overrun or _NO_LINE
        )
    if _OF_A_DUMP.issubset(report.missing) and not lost:
        return Coverage("rate_limited", _RATE_LIMITED)
    if report.missing == ("tasks",) and not lost:
        return Coverage("matched", _NO_TASKS)
    if report.missing:
        why = f": {overrun}" if overrun else ""
        return Coverage("matched", f"it lacks {', '.join(report.missing)}{why}")
    return Coverage("matched", "")


_COLUMNS: Final = ("kill_id", "cgroup_id", "limit_owner_cgroup_id")


def missed(trace: TraceTables) -> list[LogKill]:
    """Return the decisions that only the log has, in order of time; their numbers follow those of the table
    `oom`. `TraceTables.missed` keeps them."""
    found = unmatched(trace.oom, trace.logged)
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
        for kill in trace.missed
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
    victims = [
        None if kill.pid is None else trace.processes.cgroup_at(kill.pid, time_ns, APART_AT_MOST_NS)
        for kill in report.kills
    ]
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
