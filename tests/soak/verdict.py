"""What a soak showed: pure functions from what was seen to checks."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from soak.judging import Judged, JudgedKill
from soak.kernel_log import Logged
from soak.lives import Life

from tracer.lab.checks import Check

WITHIN_S: Final = 2.0
"""A kill must be in a trace on the disk within this time."""

_FULL: Final = "while the disk was full, and told as lost"
_KEPT_S: Final = 8.0
"""The history has at least so much, however many cgroups come and go."""

_SAME_S: Final = 5.0
_WARM_UP_S: Final = 60.0
_MOST_MIB_PER_HOUR: Final = 20.0
_LONG_S: Final = 600.0  # of a shorter life, the slope is shown but not judged
_COUNTED: Final = frozenset({"cgroup", "charge", "pagecache", "reclaim", "inode", "task"})
_NOT_WHOLE: Final = frozenset({"the cause is found", "one OOM kill, explained", "an OOM kill, explained"})


@dataclass(frozen=True)
class Seen:
    """What happened: `disk_full` are (from, to), `runs` what the lanes printed, times are time.time().
    `told_lost` is the number of kills that `watch` said to be lost.
    """

    lives: Sequence[Life]
    disk_full: Sequence[tuple[float, float | None]]
    logged: Sequence[Logged]
    runs: Sequence[dict[str, Any]]
    judged: Sequence[Judged]
    told_lost: int
    most_memory_bytes: int


def checks(seen: Seen) -> list[Check]:
    """Return the checks of all that was seen."""
    return [
        *_memory(seen),
        _log_is_complete(seen),
        _kills_are_in_traces(seen),
        _traces_are_readable(seen),
        _causes(seen),
        _experiments(seen),
    ]


def _memory(seen: Seen) -> list[Check]:
    longest = max(seen.lives, key=lambda life: len(life.rss))
    peak = max((size for life in seen.lives for _, size in life.rss), default=0)
    warm = [(at, size) for at, size in longest.rss if at > longest.rss[0][0] + _WARM_UP_S]
    slope, lasts_s = 0.0, 0.0
    detail = "no life was long enough"
    if len(warm) > 2:
        slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600 / (1 << 20)
        lasts_s = warm[-1][0] - warm[0][0]
        sizes = [size / (1 << 20) for _, size in warm]
        detail = f"{slope:+.1f} MiB an hour over {lasts_s:.0f} s, median {statistics.median(sizes):.1f} MiB, "
        detail += f"{min(sizes):.1f} to {max(sizes):.1f} MiB"
    return [
        Check(
            "memory stays below --max-memory",
            0 < peak <= seen.most_memory_bytes,
            f"at most {peak / (1 << 20):.1f} MiB of {seen.most_memory_bytes >> 20} MiB",
        ),
        Check("memory is flat", lasts_s < _LONG_S or slope < _MOST_MIB_PER_HOUR, detail),
    ]


def _log_is_complete(seen: Seen) -> Check:
    """Compare the log with the counters of the cgroups, since the kernel does not print each kill."""
    printed = Counter(_top(kill.cgroup) for kill in seen.logged)
    counted = Counter[str]()
    for run in seen.runs:
        counted[run["cgroup"]] += run["kills"]
    fewer = {name: (printed[name], number) for name, number in counted.items() if printed[name] < number}
    without = [run["cgroup"] for run in seen.runs if not run["kills"]]
    return Check(
        "each experiment ended in a kill",
        not without,
        f"{len(seen.runs)} runs, {sum(counted.values())} kills counted, {len(seen.logged)} in the log"
        + (f"; not in the log: {fewer}" if fewer else "")
        + (f"; no kill: {without}" if without else ""),
    )


def _kills_are_in_traces(seen: Seen) -> Check:
    """A full disk may last longer than the history: `watch` then has to say how many kills are lost."""
    by_pid: dict[int, list[JudgedKill]] = defaultdict(list)
    for trace in seen.judged:
        for kill in trace.kills:
            for pid in kill.pids:
                by_pid[pid].append(kill)
    places = Counter[str]()
    missing = []
    for logged in seen.logged:
        if any(abs(one.time_s - logged.time_s) < _SAME_S for one in by_pid[logged.pid]):
            places["in a trace"] += 1
            continue
        reason = _excuse(seen, logged.time_s)
        places[reason or "MISSING"] += 1
        if reason is None:
            missing.append(f"pid {logged.pid} in {logged.cgroup} at {logged.time_s:.1f}")
    if places[_FULL] > seen.told_lost:
        missing.append(
            f"{places[_FULL]} while the disk was full, of which {seen.told_lost} were told as lost"
        )
    places["not in the log, but in a trace"], unseen = _not_logged(seen)
    missing += unseen
    detail = ", ".join(f"{number} {where}" for where, number in places.items())
    detail += "".join(f"\n      {one}" for one in missing)
    return Check("each kill of the log is in a trace", bool(seen.logged) and not missing, detail)


def _not_logged(seen: Seen) -> tuple[int, list[str]]:
    """Return how many kills the cgroups counted and the log has not, and the names of those in no trace."""
    logged = Counter(_top(kill.cgroup) for kill in seen.logged)
    known: dict[str, set[int]] = defaultdict(set)
    for trace in seen.judged:
        for kill in trace.kills:
            known[kill.cgroup].update(kill.pids)
    found, missing = 0, []
    for cgroup in {run["cgroup"] for run in seen.runs}:
        runs = [run for run in seen.runs if run["cgroup"] == cgroup]
        kills = sum(run["kills"] for run in runs)
        if kills <= logged[cgroup]:
            continue
        if len(known[cgroup]) >= kills:
            found += kills - logged[cgroup]
        elif _excuse(seen, runs[-1]["ended_s"]) is None:
            missing.append(f"{kills} kills in {cgroup}, {len(known[cgroup])} in traces")
    return found, missing


def _top(cgroup: str) -> str:
    return "/" + cgroup.split("/")[1]


def _excuse(seen: Seen, time_s: float) -> str | None:
    """Return why a kill need not be in a trace, or None: it must."""
    for life in seen.lives:
        ready_s = life.ready_s or float("inf")
        told_s = life.told_s or float("inf")
        if not ready_s <= time_s <= told_s:
            continue
        for begin_s, end_s in seen.disk_full:
            until_s = min(end_s or float("inf"), told_s)
            if begin_s - 1 <= time_s <= until_s and (until_s > time_s + _KEPT_S or until_s == told_s):
                is_killed = until_s == told_s and life.signal == "SIGKILL"
                return "while the disk was full, until SIGKILL" if is_killed else _FULL
        if life.signal == "SIGKILL" and time_s > told_s - WITHIN_S:
            return f"within {WITHIN_S:.0f} s before SIGKILL"
        return None
    return "while watch was not there"


def _traces_are_readable(seen: Seen) -> Check:
    bad = [trace for trace in seen.judged if trace.error]
    journals = sum(trace.has_journals for trace in seen.judged)
    lost = Counter[str]()
    for trace in seen.judged:
        lost.update(trace.lost)
    detail = f"{len(seen.judged)} traces, {journals} with journals"
    detail += f", largest {max((trace.bytes_on_disk for trace in seen.judged), default=0) / 1e6:.1f} MB"
    detail += f", lost rows {dict(lost)}" if lost else ""
    detail += "".join(f"\n      {trace.trace}: {trace.error}" for trace in bad)
    return Check("each trace is whole, readable and explained", bool(seen.judged) and not bad, detail)


def _causes(seen: Seen) -> Check:
    kills = [kill for trace in seen.judged for kill in trace.kills if kill.label is not None]
    wrong = Counter(f"{kill.label} as {kill.cause} in {kill.cgroup}" for kill in kills if not _is_right(kill))
    detail = f"{len(kills)} verdicts, {len(kills) - wrong.total()} as the label"
    detail += "".join(f"\n      {number} of {name}" for name, number in wrong.items())
    return Check("each verdict is the label of its experiment", bool(kills) and not wrong, detail)


def _is_right(kill: JudgedKill) -> bool:
    return kill.cause == kill.label


def _experiments(seen: Seen) -> Check:
    """Check that all checks of an experiment pass, in a trace that has all of it as it was recorded, and has
    lost nothing."""
    began_s: dict[str, float] = {}
    for run in seen.runs:
        began_s.setdefault(run["cgroup"], run["began_s"])
    passed, failed = 0, []
    done = set[str]()
    for trace in seen.judged:
        if trace.lost.keys() & _COUNTED:
            continue
        ready_s = max(
            (life.ready_s or 0 for life in seen.lives if (life.ready_s or 0) <= trace.started_s + 1),
            default=0,
        )
        for cgroup in {kill.cgroup for kill in trace.kills}:
            begin_s = began_s.get(cgroup)
            whole_since_s = max(trace.started_s, trace.summed_until_s, ready_s)
            if begin_s is None or begin_s < whole_since_s or cgroup in done:
                continue
            done.add(cgroup)
            reasons = {
                name: why
                for kill in trace.kills
                if kill.cgroup == cgroup
                for name, why in kill.failed.items()
            }
            if reasons.keys() - _NOT_WHOLE:
                failed.append(f"{cgroup} in {trace.trace.rpartition('/')[2]}: {reasons}")
            else:
                passed += 1
    detail = f"{passed} of {passed + len(failed)} experiments that are whole in a trace without losses"
    detail += "".join(f"\n      {one}" for one in failed)
    return Check("the checks of each experiment pass", not failed, detail)
