"""The content of a trace for viewers of timelines (Perfetto, chrome://tracing), in arrays.

* Counters of each cgroup: usage, the limit, and the parts of usage, at the end of each row of a timeline in
  which the value changed.
* Reclaim and waits for memory, as spans on the threads that they delayed.
* The decisions of the OOM killer: on the cgroup whose limit was hit, on the thread whose charge failed, and
  on each victim.

Names of processes and cgroups are escaped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, times_ns
from tracer.analysis.core.lookups import Processes
from tracer.analysis.results.kill import OomReport
from tracer.analysis.views.timeline import row_length
from tracer.render.words.escape import visible

COUNTERS: Final[Mapping[str, str]] = {
    "usage_bytes": "usage",
    "limit_bytes": "limit",
    "anon_bytes": "anonymous memory",
    "cache_bytes": "page cache",
    "shmem_bytes": "shared memory (shmem)",
    "slab_bytes": "slab",
    "kernel_stack_bytes": "kernel stacks",
    "page_tables_bytes": "page tables",
    "kernel_other_bytes": "other kernel memory",
    "sock_bytes": "socket buffers",
    "swap_bytes": "swap",
    "zswap_bytes": "zswap (in other kernel memory)",
}
"""Column of a timeline -> name of its counter, in the order of display. The counters from anonymous memory to
socket buffers are all parts of usage. They do not overlap."""

_NAMES: Final[Mapping[str, str]] = {
    "kswapd": "reclaim in the background",
    "dirty": "wait: too many dirty pages",
    "swap_in": "wait: swap-in",
    "high": "wait: above memory.high",
}
UNKNOWN: Final = -1
"""The value of an unknown number in arrays of `Spans`."""


@dataclass(frozen=True, slots=True)
class Counter:
    """The known values of a counter, in bytes. Each holds from its time (ns since the epoch) to the next."""

    name: str
    times_ns: Int64s
    values: Int64s


@dataclass(frozen=True, slots=True)
class CgroupTrack:
    """The counters of a cgroup, including all cgroups below it. A counter without a known value is left out.

    `unlimited_ns` are the times at which the limit was found removed: the counter of the limit has no meaning
    from such a time until its next value.
    """

    cgroup_id: int
    name: str
    counters: tuple[Counter, ...]
    unlimited_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread. `comm` is the escaped name of its process; None: not known."""

    tgid: int
    pid: int
    comm: str | None

    @property
    def process_name(self) -> str:
        """Return a name to show."""
        return self.comm or f"process {self.tgid}"


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans that nest within a thread (`analysis.views.reclaim.nested`), ordered by thread and begin.

    `thread` is a position in `Tracks.threads`, `name` in `names`, and `target` in `targets`. The target is
    the cgroup from which an attempt tried to reclaim; -1: the span is another wait. `scanned` and `reclaimed`
    are in pages. For other waits, `scanned`, `reclaimed` and `priority` are `UNKNOWN`.
    """

    begin_ns: Int64s
    end_ns: Int64s
    depth: Int64s
    thread: Int64s
    name: Int64s
    target: Int64s
    scanned: Int64s
    reclaimed: Int64s
    priority: Int64s
    names: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """A decision of the OOM killer for the limit of the cgroup `owner_id`; None: no cgroup, or not known."""

    time_ns: int
    kill_id: int
    owner_id: int | None
    facts: Mapping[str, str | int]

    @property
    def name(self) -> str:
        """Return a name to show."""
        return f"OOM kill {self.kill_id}"


@dataclass(frozen=True, slots=True)
class Mark:
    """The part of a thread in a kill. `thread` is a position in `Tracks.threads`.

    A number in `flows` is an arrow from the thread whose charge failed to a victim. The marks of both threads
    have the number.
    """

    kill: Kill
    thread: int
    is_victim: bool
    flows: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return a name to show."""
        return f"{self.kill.name}: {'killed' if self.is_victim else 'its charge failed'}"


@dataclass(frozen=True, slots=True)
class Tracks:
    """The content. `cgroups` can be iterated once, and are made during the iteration."""

    cgroups: Iterator[CgroupTrack]
    threads: tuple[Thread, ...]
    spans: Spans
    kills: tuple[Kill, ...]
    marks: tuple[Mark, ...]


def from_analyses(
    *,
    timeline: pd.DataFrame,
    nested: pd.DataFrame,
    reclaim: pd.DataFrame,
    processes: Processes,
    paths: Mapping[int, str],
    kills: Sequence[OomReport],
) -> Tracks:
    """Return the content of a trace.

    `timeline` and `nested` are the results of `analysis.views.timeline` and `analysis.views.reclaim.nested`,
    `reclaim` is the table of that name. `paths` maps ids of cgroups to paths.
    """
    threads, flows = _Threads(processes, nested), itertools.count(1)
    timed = [(report, _kill(report, report.time)) for report in kills if report.time is not None]
    marks = [mark for report, kill in timed for mark in _marks(report, kill, threads, flows)]
    return Tracks(
        cgroups=_cgroups(timeline),
        threads=tuple(threads.found),
        spans=_spans(nested, reclaim, threads.of_spans, paths),
        kills=tuple(kill for _, kill in timed),
        marks=tuple(marks),
    )


def _cgroups(timeline: pd.DataFrame) -> Iterator[CgroupTrack]:
    if timeline.empty:
        return
    ids = integers(timeline["cgroup_id"])
    ends_ns = times_ns(timeline) + row_length(timeline).value
    bounds = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    for first, last in itertools.pairwise(bounds):
        rows = timeline.iloc[first:last]
        counters = (
            Counter(name, *_changes(rows[column], ends_ns[first:last])) for column, name in COUNTERS.items()
        )
        is_limited = rows["is_limited"]
        is_removed = (is_limited.shift().eq(True) & is_limited.eq(False)).fillna(False).to_numpy(dtype=bool)
        yield CgroupTrack(
            int(ids[first]),
            _cgroup_name(rows.iloc[0]),
            tuple(one for one in counters if len(one.values)),
            tuple(ends_ns[first:last][is_removed].tolist()),
        )


def _cgroup_name(row: pd.Series) -> str:
    container = "" if pd.isna(row["container"]) else f" ({visible(str(row['container']))})"
    run = f", run {row['run']}" if row["run"] > 1 else ""
    return f"{visible(str(row['cgroup']))}{container}{run}"


def _changes(column: pd.Series, ends_ns: Int64s) -> tuple[Int64s, Int64s]:
    """Return (times, values) of the first and the last known value, and of each value that differs from the
    one before it."""
    is_known = column.notna().to_numpy(dtype=bool)
    times, values = ends_ns[is_known], integers(column[is_known])
    is_shown = np.append(True, np.diff(values) != 0)[: len(values)]
    is_shown[-1:] = True
    return times[is_shown], values[is_shown]


class _Threads:
    """The threads of spans and kills, numbered in the order in which they are found."""

    def __init__(self, processes: Processes, nested: pd.DataFrame) -> None:
        self._processes = processes
        self._number: dict[tuple[int, int], int] = {}
        self.found: list[Thread] = []
        tgid, pid = integers(nested["tgid"]), integers(nested["pid"])
        pairs, code = np.unique(np.stack([tgid, pid], axis=1), axis=0, return_inverse=True)
        code = np.asarray(code, dtype=np.int64).ravel()
        last_ns = np.zeros(len(pairs), dtype=np.int64)
        np.maximum.at(last_ns, code, times_ns(nested))
        comms = processes.comms(processes.positions_at(np.ascontiguousarray(pairs[:, 0]), last_ns))
        numbers = [
            self._add(int(one), int(other), None if comm is None else str(comm))
            for (one, other), comm in zip(pairs.tolist(), comms, strict=True)
        ]
        self.of_spans: Int64s = np.array(numbers, dtype=np.int64)[code]

    def number(self, tgid: int, pid: int, comm: str | None) -> int:
        """Return the number of a thread. A thread that is new gets the name `comm`."""
        found = self._number.get((tgid, pid))
        return self._add(tgid, pid, comm) if found is None else found

    def _add(self, tgid: int, pid: int, comm: str | None) -> int:
        self.found.append(Thread(tgid, pid, None if comm is None else visible(comm)))
        return self._number.setdefault((tgid, pid), len(self.found) - 1)


def _spans(nested: pd.DataFrame, reclaim: pd.DataFrame, thread: Int64s, paths: Mapping[int, str]) -> Spans:
    begin_ns, attempt = times_ns(nested), integers(nested["attempt"])
    kinds = [str(kind) for kind in nested["kind"].cat.categories]
    name = nested["kind"].cat.codes.to_numpy().astype(np.int64)
    of_attempt = {
        column: np.append(integers(reclaim[column], UNKNOWN), UNKNOWN)[attempt]
        for column in ("scanned", "reclaimed", "priority", "cgroup_id")
    }
    targets, target = _coded(of_attempt["cgroup_id"])
    is_target = (attempt >= 0) & (of_attempt["cgroup_id"] != UNKNOWN)
    order = np.lexsort((nested["depth"].to_numpy(), begin_ns, thread))
    return Spans(
        begin_ns=begin_ns[order],
        end_ns=(begin_ns + integers(nested["duration_ns"]))[order],
        depth=integers(nested["depth"])[order],
        thread=thread[order],
        name=np.where(name < 0, len(kinds), name)[order],
        target=np.where(is_target, target, -1)[order],
        scanned=of_attempt["scanned"][order],
        reclaimed=of_attempt["reclaimed"][order],
        priority=of_attempt["priority"][order],
        names=(*(_NAMES.get(kind, _waited(kind)) for kind in kinds), "wait"),
        targets=tuple(visible(paths.get(number) or f"id:{number}") for number in targets),
    )


def _waited(kind: str) -> str:
    return kind if kind == "reclaim" else f"throttled: {kind}"


def _coded(ids: Int64s) -> tuple[list[int], Int64s]:
    values, code = np.unique(ids, return_inverse=True)
    return values.tolist(), np.asarray(code, dtype=np.int64).ravel()


def _kill(report: OomReport, time: pd.Timestamp) -> Kill:
    trigger, owner = report.trigger, report.limit_owner
    facts: dict[str, str | int | None] = {
        "kill": report.kill_id,
        "cause": report.verdict.cause,
        "constraint": visible(report.constraint),
        "limit of": None if owner.cgroup is None else visible(owner.cgroup),
        "limit_bytes": owner.limit_bytes,
        "usage_bytes": owner.usage_bytes,
        "triggered by": _task(trigger.comm, trigger.pid),
        "killed": ", ".join(filter(None, (_task(one.comm, one.pid) for one in report.victims))) or None,
    }
    known = {name: fact for name, fact in facts.items() if fact is not None}
    return Kill(time.as_unit("ns").value, report.kill_id, owner.cgroup_id, known)


def _marks(report: OomReport, kill: Kill, threads: _Threads, flows: Iterator[int]) -> Iterator[Mark]:
    trigger = report.trigger
    arrows: list[tuple[int, ...]] = [() for _ in report.victims]
    if trigger.pid is not None:
        arrows = [(next(flows),) for _ in report.victims]
        thread = threads.number(trigger.tgid or trigger.pid, trigger.pid, trigger.comm)
        yield Mark(kill, thread, is_victim=False, flows=tuple(itertools.chain(*arrows)))
    for victim, arrow in zip(report.victims, arrows, strict=True):
        if victim.pid is None:
            continue
        thread = threads.number(victim.pid, victim.pid, victim.comm)
        yield Mark(kill, thread, is_victim=True, flows=arrow)


def _task(comm: str | None, pid: int | None) -> str | None:
    return None if pid is None else f"{visible(comm or 'a task')} (pid {pid})"


END, MARK, BEGIN = range(3)


def event_order(spans: Spans, marks: Sequence[Mark]) -> tuple[Int64s, Int64s]:
    """Return (END, MARK or BEGIN; the position in `spans` or `marks`) of each event, by thread and time.

    At the same time, spans end before others begin. Inner spans end first, and outer spans begin first.
    """
    count = len(spans.begin_ns)
    phase = np.repeat([END, BEGIN, MARK], [count, count, len(marks)])
    position = np.concatenate([np.arange(count), np.arange(count), np.arange(len(marks))])
    marked_ns = np.array([mark.kill.time_ns for mark in marks], dtype=np.int64)
    time = np.concatenate([spans.end_ns, spans.begin_ns, marked_ns])
    thread = np.concatenate([spans.thread, spans.thread, np.array([mark.thread for mark in marks], np.int64)])
    depth = np.concatenate([-spans.depth, spans.depth, np.arange(len(marks))])
    order = np.lexsort((depth, phase, time, thread))
    return phase[order], position[order]
