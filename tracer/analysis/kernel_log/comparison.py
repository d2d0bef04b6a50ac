"""The kernel log of a trace, compared with the records of its probes and merged into their tables.

A value that a program read from the kernel is kept. Values that programs inferred, or did not have, are taken
from the report in the log: constraint, limit owner, gfp and order (`oom`); and memory.stat of the limit owner
with all below it (`samples`). The program reads memory.stat only of cgroups with nothing below them, and may
lack some of its counters.

Differences are reported with both numbers. Pids, names, limits, oom_score_adj, gfp and order must be equal.
Sizes are read at two moments, and may differ by the batches that CPUs hold back: usage by MEMCG_CHARGE_BATCH
pages for each CPU (mm/memcontrol.c), RSS by a batch of percpu_counter for each CPU (lib/percpu_counter.c),
page tables by one page. A victim that exits fast may have given back more by the time its line was printed.

Values that the trace only inferred are compared as well, except order and gfp: the trace has those of a
reclaim attempt instead, whose flags differ from those of the charge (mm/vmscan.c,
try_to_free_mem_cgroup_pages).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from tracer.analysis.core.columns import (
    Bools,
    Cells,
    Int64s,
    integers,
    is_one_of,
    known,
    limit_of,
    optional,
    records,
    times_ns,
)
from tracer.analysis.core.lookups import Logged
from tracer.analysis.core.rows import RowIndex
from tracer.analysis.core.tables import CHARGE_BATCH_PAGES, TraceTables, page_size
from tracer.analysis.kernel_log import decisions, logged_kill
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg.report.log_report import Kill, LogReport, MemoryStat, OwnerMemory
from tracer.schema import LIMITS, MEMORY_STAT_COLUMNS, TABLES, UNLIMITED_BYTES
from tracer.stored_names import stored_text
from tracer.trace.read.to_pandas import to_frame

KERNEL_LOG: Final = "kernel_log"
_SUBJECT: Final = "the kernel log of the trace"

Taken = dict[int, list[str]]
"""kill_id -> the dotted names of the fields of its report that come from the log."""

_Written = dict[str, dict[int, Any]]
"""Column of a table -> position of a row -> its new value. A column is written once, with all new values."""

_INFERRED: Final = (
    *("is_told", "constraint", "limit_owner_cgroup_id"),
    *("usage_bytes", "limit_bytes", LIMITS["limit_bytes"]),
)


def _told(trace: TraceTables, matched: Mapping[int, Logged], taken: Taken) -> pd.DataFrame:
    """Return `oom` with the log's values for decisions that were inferred; `matched` are the reports by
    kill_id. `taken` is filled with what was added."""
    oom = trace.oom.assign(constraint=trace.oom["constraint"].astype(object))
    of_kill = RowIndex.from_keys(integers(oom["kill_id"]))
    inferred, times, written = records(oom, _INFERRED), times_ns(oom), _Written()
    for kill_id, logged in matched.items():
        rows, shown = of_kill.rows_for(kill_id), logged.shown
        first = inferred[rows[0]]
        if optional(first["is_told"]) or not shown.has_header:
            continue
        told: dict[str, Any] = {"gfp": shown.gfp, "order": shown.order}
        taken[kill_id] += [f"trigger.{name}" for name, value in told.items() if value is not None]
        if shown.constraint != "unknown":
            told |= _owner(trace, first, int(times[rows[0]]), logged, taken[kill_id])
        _put(written, rows, told)
    is_gone, tgids = ~known(oom["anon_rss_bytes"]), integers(oom["tgid"])
    gone_of = set(integers(oom["kill_id"])[is_gone].tolist())
    for kill_id, logged in matched.items():
        if kill_id in gone_of:
            rows = of_kill.rows_for(kill_id)
            gone = dict(zip(rows[is_gone[rows]].tolist(), tgids[rows[is_gone[rows]]].tolist(), strict=True))
            _take_sizes(written, gone, logged.report, page_size(trace), taken[kill_id])
    return _with_cells(oom, written)


def _put(written: _Written, rows: Int64s, values: Mapping[str, Any]) -> None:
    """Write column -> value into the rows at these positions."""
    for column, value in values.items():
        written.setdefault(column, {}).update(dict.fromkeys(rows.tolist(), value))


def _with_cells(table: pd.DataFrame, written: _Written) -> pd.DataFrame:
    """Return the table with these new values."""
    table = table.copy(deep=False) if written else table
    for name, value_of in written.items():
        column = table[name].copy()
        kind: Any = column.dtype
        column.iloc[list(value_of)] = pd.array([*value_of.values()], dtype=kind)
        table[name] = column
    return table


def _take_sizes(
    written: _Written, gone: Mapping[int, int], report: LogReport, page_bytes: int, taken: list[str]
) -> None:
    """Take the sizes of victims whose memory was gone when they were marked; `gone`: position of the row ->
    tgid.

    The kernel sends SIGKILL before it marks a victim (__oom_kill_process, mm/oom_kill.c). The log's table of
    tasks was printed before that.
    """
    listed = {task.tgid: task for task in report.tasks if task.rss_anon_pages is not None}
    for row, tgid in gone.items():
        if (task := listed.get(tgid)) is not None:
            _put(written, np.array([row]), task.sizes_bytes(page_bytes))
            taken.append("victims.anon_rss_bytes")


def _owner(
    trace: TraceTables, first: Mapping[str, Any], time_ns: int, logged: Logged, taken: list[str]
) -> dict[str, Any]:
    """Return constraint and limit owner as columns of `oom`.

    If the trace does not have the log's owner, the inferred one stays, marked as inferred.
    """
    shown, constraint = logged.shown, logged.shown.constraint
    if constraint != str(first["constraint"]):
        taken.append("constraint")
    if constraint != "memcg":
        columns = dict.fromkeys(("limit_owner_cgroup_id", "usage_bytes"))
        return {"constraint": constraint, "is_told": True} | columns | _limit(None)
    owner_id = None if shown.oom_memcg is None else trace.places.id_at(stored_text(shown.oom_memcg), time_ns)
    if owner_id is None:
        return {"constraint": constraint}
    told: dict[str, Any] = {
        "constraint": constraint,
        "is_told": True,
        "limit_owner_cgroup_id": owner_id,
    }
    if owner_id != optional(first["limit_owner_cgroup_id"]):
        memory = logged.report.counters.get("memory")
        told["usage_bytes"] = None if memory is None else memory.usage_bytes
        told |= _limit(None if memory is None else memory.limit_bytes)
        taken.append("limit_owner")
    return told


def _limit(limit_bytes: int | None) -> dict[str, Any]:
    """Return the columns of a limit in bytes; None: not known."""
    is_limited = None if limit_bytes is None else limit_bytes < UNLIMITED_BYTES
    return {"limit_bytes": limit_bytes if is_limited else None, LIMITS["limit_bytes"]: is_limited}


def _known_in(table: pd.DataFrame) -> Callable[[str], Bools]:
    """Return the look-up of the mask of rows in which a column is not null, by its name."""

    @cache
    def is_known(name: str) -> Bools:
        return known(table[name])

    return is_known


@cache
def _origins(columns: tuple[str, ...]) -> Mapping[str, str]:
    """Return the origins of these columns of `samples`; the reports of one kernel have the same ones."""
    return {column.removesuffix("_bytes"): KERNEL_LOG for column in columns}


@cache
def _origins_of_row(columns: tuple[str, ...], usage_table: str) -> Mapping[str, str]:
    return {"usage": usage_table, **_origins(columns)}


def _is_of(trace: TraceTables, owner_id: int, stat: MemoryStat) -> bool:
    return trace.places.path_of(owner_id) == stored_text(stat.cgroup)


def _memory_stat(memory: OwnerMemory) -> dict[str, int]:
    """Return columns of `samples` for the limit owner with all below it."""
    if not memory.stats:
        return {}
    found = logged_kill.sizes(memory)
    return {column: size for name, column in MEMORY_STAT_COLUMNS.items() if (size := found[name]) is not None}


def _with_rows(samples: pd.DataFrame, rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the samples with these rows added; columns that a row lacks are null."""
    if not rows:
        return samples
    added = to_frame(pa.Table.from_pylist(rows, schema=TABLES["samples"]))
    if samples.empty:  # pandas 2 warns that its columns will decide on types
        return added.sort_index(kind="stable")
    return pd.concat([samples, added]).sort_index(kind="stable")


_COUNTER_BATCH_PAGES: Final = 32  # at least, and twice the number of CPUs
_KIB: Final = 1024
COLUMNS: Final = (
    *("constraint", "limit_owner_cgroup_id", "usage_bytes", "limit_bytes", LIMITS["limit_bytes"]),
    *("trigger_pid", "trigger_comm", "is_told", "order", "gfp", "pid", "comm", "oom_score_adj"),
    *("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes"),
)
"""The columns of `oom` that are compared."""

_LONGEST_NAME: Final = 400  # a longer path may be cut in its line (LOG_LINE_MAX, kernel/printk/printk.c)


@dataclass(frozen=True, slots=True)
class Difference:
    """A value on which the trace and its kernel log differ, or a victim that only one of them has.

    `kind`: a key of `explain.words.sentence_parts.DIFFERENCES`. `ours` is the value of the trace, `theirs`
    the value of the log; sizes in bytes. `pid`: of the victim.
    """

    kind: str
    ours: str | int | None = None
    theirs: str | int | None = None
    pid: int | None = None


def disagreements(
    trace: TraceTables, rows: Sequence[Mapping[str, Any]], report: LogReport
) -> Iterator[Difference]:
    """Yield each difference; `rows` are those of one kill in `oom`, with `COLUMNS`."""
    first = rows[0]
    cpus = int(trace.meta.get("cpus", 1))
    yield from _decision(trace, first, report)
    memory = report.counters.get("memory")
    if memory is not None:
        stock_bytes = CHARGE_BATCH_PAGES * cpus * page_size(trace)
        yield from _sizes("usage_bytes", optional(first["usage_bytes"]), memory.usage_bytes, stock_bytes)
        yield from _sizes("limit_bytes", limit_of(first), memory.limit_bytes, _KIB)
    killed = {kill.pid: kill for kill in report.kills}
    slack_bytes = max(_COUNTER_BATCH_PAGES, 2 * cpus) * cpus * page_size(trace)
    for row in rows:
        kill = killed.pop(int(row["pid"]), None)
        if kill is not None:
            yield from _victim(row, kill, slack_bytes, page_size(trace))
        elif report.kills:
            yield Difference("not_logged", pid=int(row["pid"]))
    for pid in killed:
        yield Difference("not_marked", pid=pid)


def _decision(trace: TraceTables, first: Mapping[str, Any], report: LogReport) -> Iterator[Difference]:
    constraint, asked = str(first["constraint"]), report.invoker
    if "unknown" not in (constraint, report.constraint):
        yield from _unequal("constraint", constraint, report.constraint)
    owner = trace.places.path_of(optional(first["limit_owner_cgroup_id"]))
    if owner is not None and report.oom_memcg is not None and len(owner) < _LONGEST_NAME:
        yield from _unequal("limit_owner", owner, stored_text(report.oom_memcg))
    yield from _unequal("trigger_pid", int(first["trigger_pid"]), asked.pid)
    if asked.comm is not None:
        yield from _unequal("trigger_comm", str(first["trigger_comm"]), stored_text(asked.comm))
    if optional(first["is_told"]):
        yield from _unequal("order", optional(first["order"]), asked.order)
        yield from _unequal("gfp", optional(first["gfp"]), asked.gfp)


def _victim(row: Mapping[str, Any], kill: Kill, slack_bytes: int, page_bytes: int) -> Iterator[Difference]:
    yield from _unequal("comm", str(row["comm"]), stored_text(kill.comm), kill.pid)
    yield from _unequal("oom_score_adj", int(row["oom_score_adj"]), kill.oom_score_adj, kill.pid)
    slacks = dict.fromkeys(("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes"), slack_bytes)
    for name, within_bytes in (slacks | {"pgtables_bytes": page_bytes}).items():
        yield from _sizes(name, optional(row[name]), getattr(kill, name), within_bytes, kill.pid)


def _unequal(
    kind: str, ours: str | int | None, theirs: str | int | None, pid: int | None = None
) -> Iterator[Difference]:
    if ours is not None and theirs is not None and ours != theirs:
        yield Difference(kind, ours, theirs, pid)


def _sizes(
    kind: str, ours: int | None, theirs: int | None, within_bytes: int, pid: int | None = None
) -> Iterator[Difference]:
    """Yield two sizes that differ by more than `within_bytes`; the kernel prints whole KiB, rounded down."""
    if ours is not None and theirs is not None and abs(ours - theirs) > max(within_bytes, _KIB):
        yield Difference(kind, ours, theirs, pid)


@dataclass(frozen=True, slots=True)
class Told:
    """The findings of the log on one kill.

    `state`, `missing` and `fields` are the values that `Quality` of its report gets.
    `origins` is name of a size of its sample (`usage`, or of memory.stat) -> the table that it is from, for
    sizes that no program read into `samples`. `logged`: None without a report.
    """

    logged: Logged | None
    state: KernelLog
    missing: str
    fields: tuple[str, ...]
    disagreements: tuple[Difference, ...]
    origins: Mapping[str, str]

    @property
    def report(self) -> LogReport | None:
        """Return the report, which is parsed if nothing asked for it before."""
        return None if self.logged is None else self.logged.report

    def gfp_names(self, gfp: int | None) -> str:
        """Return the names that the log has for these flags; "" if the log has other flags, or none."""
        shown = None if self.logged is None else self.logged.shown
        return (shown.gfp_names or "") if shown is not None and shown.gfp == gfp else ""


@dataclass(frozen=True, slots=True)
class _Added:
    """What the log adds to `samples` for one kill.

    `row` is a whole row, if no program read memory.stat at the kill; else `cells` are column -> value for the
    rows at the positions `at`. `fields` and `origins`: as `Told` has them.
    """

    row: Mapping[str, Any] | None = None
    at: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    cells: Mapping[str, int] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


class Completed:
    """Two tables of a trace with what its kernel log adds, and the findings of the log on each kill.

    `matched` are the reports by kill_id. A report is parsed when its kill is asked for: `oom` needs few of
    them. `without` is the reason why the log is not used.
    """

    def __init__(
        self, trace: TraceTables, matched: Mapping[int, Logged], *, without: str | None = None
    ) -> None:
        self._trace, self._matched, self._without = trace, matched, without
        kill_ids = integers(trace.oom["kill_id"])
        self.kill_ids = list(dict.fromkeys(kill_ids.tolist()))
        self._of_kill = RowIndex.from_keys(kill_ids)
        self._taken: Taken = {kill_id: [] for kill_id in self.kill_ids}
        self.oom = _told(trace, matched, self._taken) if matched else trace.oom
        self._added: dict[int, _Added] = {}

    def samples(self, kill_ids: Collection[int] | None = None) -> pd.DataFrame:
        """Return `samples` with memory.stat of the limit owner at these kills if no program read it; None: at
        all kills."""
        rows, written = list[Mapping[str, Any]](), _Written()
        for kill_id in self._matched:
            if kill_ids is None or kill_id in kill_ids:
                added = self._added_for(kill_id)
                rows += [] if added.row is None else [added.row]
                _put(written, added.at, added.cells)
        return _with_rows(_with_cells(self._trace.samples, written), rows)

    def state(self, kill_id: int) -> KernelLog:
        """Return how much of the report on a kill the log has."""
        return "matched" if self._is_matched(kill_id) else self.told(kill_id).state

    def _is_matched(self, kill_id: int) -> bool:
        """Return whether the log has a report on a kill from its first line on: its state is known then."""
        logged = self._matched.get(kill_id)
        return logged is not None and logged.shown.has_header

    def told(self, kill_id: int) -> Told:
        """Return the findings of the log on a kill. A bug that keeps them from being found is kept."""
        return self._trace.defects.attempt(_SUBJECT, partial(self._found, kill_id), _not_told)

    def added(self, kill_id: int) -> Told:
        """Return the findings of `told` without `missing`, and without disagreements: a usual report need
        not be parsed for what they add."""
        if not self._is_matched(kill_id):
            return self.told(kill_id)
        return self._trace.defects.attempt(_SUBJECT, partial(self._found_added, kill_id), _not_told)

    def _found(self, kill_id: int) -> Told:
        if self._without is not None:
            return _not_told(self._without)
        logged, positions = self._matched.get(kill_id), self._of_kill.rows_for(kill_id)
        time_ns = int(self._times[positions[0]])
        coverage = decisions.coverage(self._trace, time_ns, None if logged is None else logged.report)
        if logged is None:
            return Told(None, coverage.state, coverage.missing, (), (), {})
        rows = [self._recorded.row(position) for position in positions.tolist()]
        return replace(
            self._found_added(kill_id),
            state=coverage.state,
            missing=coverage.missing,
            disagreements=tuple(disagreements(self._trace, rows, logged.report)),
        )

    def _found_added(self, kill_id: int) -> Told:
        logged, added = self._matched[kill_id], self._added_for(kill_id)
        stack_id = self._recorded.columns["kernel_stack_id"][self._of_kill.rows_for(kill_id)[0]]
        has_stack = _lacks_stack(self._trace, stack_id) and logged.stack
        fields = (*self._taken[kill_id], *added.fields, *(["trigger.stack"] if has_stack else []))
        return Told(logged, "matched", "", fields, (), added.origins)

    def _added_for(self, kill_id: int) -> _Added:
        if kill_id not in self._added:
            self._added[kill_id] = self._trace.defects.attempt(
                _SUBJECT, partial(self._read, kill_id), lambda _: _Added()
            )
        return self._added[kill_id]

    def _read(self, kill_id: int) -> _Added:
        memory, position = self._matched[kill_id].memory(), int(self._of_kill.rows_for(kill_id)[0])
        first = self._inferred.row(position)
        owner_id = optional(first["limit_owner_cgroup_id"])
        reading = _memory_stat(memory)
        if owner_id is None or not reading or not _is_of(self._trace, owner_id, memory.stats[0]):
            return _Added()
        at_kill = self._at_kills[self._read_at_kill.rows_for(kill_id)]
        at_kill = at_kill[self._sampled_ids[at_kill] == owner_id]
        if not len(at_kill):
            counter = {"usage_bytes": optional(first["usage_bytes"]), "limit_bytes": limit_of(first)}
            time_ns = int(self._times[position])
            row = {"time": time_ns, "cgroup_id": owner_id, "source": "oom", "kill_id": kill_id}
            is_owner_logged = "limit_owner" in self._taken[kill_id]
            origins = _origins_of_row(tuple(reading), KERNEL_LOG if is_owner_logged else "oom")
            return _Added(row | counter | reading, fields=("composition",), origins=origins)
        is_read = self._is_read
        was_read = bool(is_read("anon_bytes")[at_kill].any())
        # All of memory.stat, or those of its counters that calibration did not find
        # (capture/learn/calibration.py).
        lacking = {n: value for n, value in reading.items() if not (was_read and is_read(n)[at_kill].any())}
        if not lacking:
            return _Added()
        fields = ("memory_stat_bytes" if was_read else "composition",)
        return _Added(None, at_kill, lacking, fields, _origins(tuple(lacking)))

    @cached_property
    def _times(self) -> Int64s:
        return times_ns(self._trace.oom)

    @cached_property
    def _recorded(self) -> Cells:
        return Cells.from_frame(self._trace.oom[[*COLUMNS, "kernel_stack_id"]])

    @cached_property
    def _inferred(self) -> Cells:
        return Cells.from_frame(self.oom[[*_INFERRED]])

    @cached_property
    def _at_kills(self) -> Int64s:
        """Return the positions of the samples that were taken at kills."""
        return np.flatnonzero(is_one_of(self._trace.samples["source"], ["oom"]))

    @cached_property
    def _read_at_kill(self) -> RowIndex:
        return RowIndex.from_keys(integers(self._trace.samples["kill_id"])[self._at_kills])

    @cached_property
    def _sampled_ids(self) -> Int64s:
        return integers(self._trace.samples["cgroup_id"])

    @cached_property
    def _is_read(self) -> Callable[[str], Bools]:
        return _known_in(self._trace.samples)


def complete(trace: TraceTables) -> Completed:
    """Return the tables of a trace completed by its kernel log."""
    return Completed(trace, decisions.match(trace.oom, trace.logged) if len(trace.oom) else {})


def without(trace: TraceTables, why: str) -> Completed:
    """Return the tables of a trace as they are. `why` is the reason why its kernel log is not used."""
    return Completed(trace, {}, without=why)


def _not_told(why: str) -> Told:
    return Told(None, "missing", why, (), (), {})


def _lacks_stack(trace: TraceTables, stack_id: Any) -> bool:
    """Return whether the trace does not have the names of the trigger's kernel stack."""
    number = optional(stack_id)
    return number is None or not trace.functions.is_named(number)
