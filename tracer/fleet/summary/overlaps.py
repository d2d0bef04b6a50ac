"""The summaries of several traces as one, in which nothing counts twice.

Traces of one boot can overlap: `watch` writes one for each kill, and another one on request, each with the
minutes before, and several recorders may run at the same time. Each recorder reads the clock for itself. So
shared rows are recognised by the boot and by what the kernel keeps, which is the same in all traces:

* a trace is identified by its `trace_id`, of which there may be copies;
* a kill is identified by the pid and the start of its (first) victim, since a process is killed once. Rows of
  older versions have no start: they are recognised by the pid and `ktime_ns`, in traces of one recorder. A
  kill that only a kernel log has (`kmsg` is `only`) has no `ktime_ns`: it is the kill of this boot and pid
  within two seconds;
* another SIGKILL is identified by the pid and the start of the process that it ended, in the same way;
* a life is identified by the id of the cgroup, which no other cgroup of the hierarchy ever has
  (`kernfs_node.id`);
* a minute is identified by the cgroup and its `ktime_ns`, a multiple of its length.

Machines that were resumed from one snapshot share the boot id, the processes from before the snapshot, and
the ids of the cgroups that each of them makes next. A hierarchy of cgroup v1 that is unmounted and mounted
again begins again with its ids. So the rows of one process or cgroup are divided where their times
(`ktime_ns`, `made_ktime_ns`) are more than `CLOCKS_APART_AT_MOST_NS` apart. A trace may not have seen how the
cgroup was made: it began later, or did not trace this cgroup. It then shows the last life that was made
before the trace, or else the first one that was made until its end. What machines with one boot id did at the
same `ktime_ns` still counts once, and so do their minutes, and lives whose begin no trace saw.

Of the rows of a kill, the one with the best quality is kept. The rows of a life, or of a minute, become one:
from the earliest begin to the latest end, with the greatest of the peaks. Sums (`evicted_bytes`,
`refaulted_bytes`) cannot be divided, so they are taken from the stretches that do not overlap and together
last longest: each sum is then a lower bound. Stretches of `evictors` are chosen in the same way, for each
minute and owner of page cache.

A trace without boot id overlaps with no other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis.kernel_log.decisions import APART_AT_MOST_NS
from tracer.analysis.results.kill import CONFIDENCES
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.workload import NOWHERE
from tracer.trace.arrow_columns import as_type

Row = dict[str, Any]

CLOCKS_APART_AT_MOST_NS: Final = 2_000_000_000
"""The greatest distance between the clocks that recorders read at one event.

Their programs run one after the other in the task that causes the event, microseconds apart. Only interrupts,
preemption, or a hypervisor that takes the CPU away delay a program by more, and seconds are beyond all three.
"""

_BOOT: Final = "boot"
_FOREVER: Final = 1 << 62
_NAMES: Final = ("workload", "namespace", "pod", "container", "container_id", "image", "cgroup", "cgroup_id")
_SIZES: Final = ("usage_bytes", "unreclaimable_bytes", "working_set_bytes")
_SUMS: Final = ("evicted_bytes", "refaulted_bytes")
_WORST_FIRST: Final = ("throttled", "thrashing", "held")
_WORST: Final = ("lost_share", "peak_with_swap_bytes", "comfortable_bytes", "killed_below_bytes")
_ENOUGH: Final = ("survives_from_bytes", "reads_nothing_from_bytes")
"""A limit is enough for a life if it is known to be enough for each part of it."""


def conform(table: pa.Table, name: str, only: Sequence[str] | None = None) -> pa.Table:
    """Return a table with the columns of `SUMMARIES[name]`, or only some of these. A column that an older
    version did not have is null, and one that a newer version added is left out."""
    schema = _loose(name, None if only is None else tuple(only))
    there = frozenset(table.column_names)
    columns = [
        as_type(table[field.name], field.type)
        if field.name in there
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@cache
def _loose(name: str, only: tuple[str, ...] | None) -> pa.Schema:
    """Return the fields of `SUMMARIES[name]`, or only some of these, each of which may be null."""
    fields = [field for field in SUMMARIES[name] if only is None or field.name in only]
    return pa.schema([field.with_nullable(True) for field in fields])


def merged(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Merge the summary tables of several traces, given one after the other: rows that they share occur once.

    Rows are in no order. All rows of one boot must be there: the result for traces of several machines is the
    same as machine by machine. Tables that are not given are left out, and the `kills` of lives are counted
    again only if that table is given. Merging a result again does not change it.
    """
    given = {name: conform(table, name) for name, table in tables.items()}
    found: dict[str, pa.Table] = {}
    for name, table in given.items():
        if name == "lives":
            kills = None if "kills" not in given else _merged_groups(given["kills"], *_GROUPS["kills"])
            found[name] = _merged_groups(table, _GROUPS[name][0], partial(_lives, kills=kills))
        elif name == "evictors":
            found[name] = _chosen_evictors(table)
        else:
            found[name] = _merged_groups(table, *_GROUPS[name])
    return found


def chosen_stretches(stretches: Sequence[tuple[int, int, str]]) -> list[int]:
    """Return the positions of the stretches (begin, end, name) that do not overlap and together last longest,
    in order of time. Both ends belong to a stretch."""
    order = sorted(range(len(stretches)), key=lambda place: (stretches[place][1], stretches[place]))
    ends = [stretches[place][1] for place in order]
    lengths = [0]  # lengths[count]: the greatest total length among the first ones
    before: list[int | None] = [None]  # before[count]: how many come before the last of these, if it is taken
    for count, place in enumerate(order):
        begin, end, _ = stretches[place]
        earlier = bisect_left(ends, begin, 0, count)
        length = lengths[earlier] + end - begin + 1
        is_taken = length > lengths[-1]
        lengths.append(length if is_taken else lengths[-1])
        before.append(earlier if is_taken else None)
    chosen, count = list[int](), len(order)
    while count:
        left = before[count]
        if left is not None:
            chosen.append(order[count - 1])
        count = count - 1 if left is None else left
    return chosen[::-1]


def _merged_groups(
    table: pa.Table, keys: Sequence[str], merge: Callable[[list[Row]], Iterable[Row]]
) -> pa.Table:
    """Return the table with the rows of each key merged by `merge`. A row with a key of its own stays."""
    boot = pc.coalesce(table["boot_id"], table["trace_id"])
    frame = table.append_column(_BOOT, boot).select(keys).to_pandas(types_mapper=pd.ArrowDtype)
    number = frame.groupby(list(keys), dropna=False, sort=False).ngroup().to_numpy()
    several = np.bincount(number, minlength=1)[number] > 1 if len(number) else np.zeros(0, np.bool_)
    if not several.any():
        return table
    alone, shared = table.filter(pa.array(~several)), table.filter(pa.array(several))
    rows = sorted(zip(number[several].tolist(), _rows(shared), strict=True), key=lambda pair: pair[0])
    made = [
        one
        for _, pairs in groupby(rows, key=lambda pair: pair[0])
        for one in merge([row for _, row in pairs])
    ]
    return pa.concat_tables([alone, pa.Table.from_pylist(made, table.schema)])


def _rows(table: pa.Table) -> list[Row]:
    """Return the rows, with times as integers (ns), since datetime has microseconds."""
    timed = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    for name in timed:
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pa.int64()))
    found: list[Row] = table.to_pylist()
    return found


def _best(rows: Iterable[Row], *order: Callable[[Row], Any]) -> Row:
    return min(rows, key=lambda row: (*(one(row) for one in order), row["trace_id"], row["trace"]))


def _sources(rows: list[Row]) -> Iterable[Row]:
    yield _best(rows, lambda row: -(row["end"] or 0))


def _kills(rows: list[Row]) -> Iterable[Row]:
    """Yield one row for each kill of one victim's pid and boot."""
    recorded = [row for row in rows if row["ktime_ns"] is not None]
    times = [row["time"] for row in recorded]
    for same in _ends(recorded, "victim_start_ns"):
        yield _best(
            same, _doubt, lambda row: row["lost_records"] or 0, lambda row: row["grown_function"] is None
        )
    logged = [row for row in rows if row["ktime_ns"] is None]
    for row in sorted(logged, key=lambda one: one["time"]):
        if all(abs(row["time"] - time) > APART_AT_MOST_NS for time in times):
            times.append(row["time"])
            yield row


def _sigkills(rows: list[Row]) -> Iterable[Row]:
    """Yield one row for each SIGKILL of one pid and boot."""
    for same in _ends(rows, "start_ns"):
        yield _best(same, lambda row: row["workload"] == NOWHERE, lambda row: row["psi_some_share"] is None)


def _ends(rows: Sequence[Row], start: str) -> Iterable[list[Row]]:
    """Yield the rows on the end of each process of one pid and boot; `start` is the column of its start.

    A row of an older version lacks the start. It gets the start from a row with the same `ktime_ns`.
    """
    starts = {row["ktime_ns"]: row[start] for row in rows if row[start] is not None}
    processes: dict[int | None, list[Row]] = {}
    for row in rows:
        known = starts.get(row["ktime_ns"]) if row[start] is None else row[start]
        processes.setdefault(known, []).append({**row, start: known})
    for known, same in processes.items():
        yield from _at_once(same, "ktime_ns", 0 if known is None else CLOCKS_APART_AT_MOST_NS)


def _at_once(
    rows: Iterable[Row], clock: str, apart_at_most_ns: int = CLOCKS_APART_AT_MOST_NS
) -> list[list[Row]]:
    """Return the rows in order of the column `clock`, divided where the gap to the next one is longer.

    The rows of one machine are microseconds apart, so any of them give the same groups. A chain of three
    machines, of which only neighbours are near enough, is one group, unless two of them were merged before:
    the row that was kept may then be too far from the third.
    """
    found: list[list[Row]] = []
    for row in sorted(rows, key=lambda one: one[clock] or 0):
        if not found or (row[clock] or 0) - (found[-1][-1][clock] or 0) > apart_at_most_ns:
            found.append([])
        found[-1].append(row)
    return found


def _doubt(row: Row) -> int:
    confidence = row["confidence"]
    return CONFIDENCES.index(confidence) if confidence in CONFIDENCES else len(CONFIDENCES)


def _lives(rows: list[Row], kills: pa.Table | None = None) -> Iterable[Row]:
    """Yield one row for each life of one boot and id of a cgroup."""
    made = _at_once((row for row in rows if row["made_ktime_ns"] is not None), "made_ktime_ns")
    begins = [same[0]["made_ktime_ns"] for same in made]
    lives: list[list[Row]] = [[], *made]
    for row in rows:
        if row["made_ktime_ns"] is None:
            earlier = bisect_right(begins, row["first_ktime_ns"] + CLOCKS_APART_AT_MOST_NS)
            lives[earlier or bisect_right(begins[:1], row["last_ktime_ns"])].append(row)
    for same in filter(None, lives):
        life = _joined(same)
        if kills is not None and len(same) > 1:
            life["kills"] = _kills_of(life, kills)
        yield life


def _kills_of(life: Row, kills: pa.Table) -> int:
    boot = "boot_id" if life["boot_id"] is not None else "trace_id"
    is_own = pc.and_(pc.equal(kills["cgroup_id"], life["cgroup_id"]), pc.equal(kills[boot], life[boot]))
    times = kills["time"].cast(pa.int64())
    is_within = pc.and_(pc.greater_equal(times, life["time"]), pc.less_equal(times, life["end"]))
    return int(pc.sum(pc.and_(is_own, is_within)).as_py() or 0)


def _joined(rows: list[Row]) -> Row:
    """Return the rows of one life, merged into one."""
    if len(rows) == 1:
        return rows[0]
    first = _best(rows, lambda row: row["time"])
    found = {**first, **_named(rows)}
    chosen, stretches = _stretches(rows)
    return {
        **found,
        "end": max(row["end"] for row in rows),
        "is_begin_seen": any(row["is_begin_seen"] for row in rows),
        "is_end_seen": any(row["is_end_seen"] for row in rows),
        "made_ktime_ns": _greatest(row["made_ktime_ns"] for row in rows),
        "first_ktime_ns": min(begin for begin, *_ in stretches),
        "last_ktime_ns": max(end for _, end, _ in stretches),
        "observed_s": _covered_ns(stretches) / 1e9,
        **{f"peak_{size}": _greatest(row[f"peak_{size}"] for row in rows) for size in _SIZES},
        "kills": _greatest(row["kills"] for row in rows),
        **{name: _sum(row[name] for row in chosen) for name in _SUMS},
        **_slowdowns(rows),
    }


def _slowdowns(rows: list[Row]) -> Row:
    """Return the worst state in the rows of a life, and the end of its work by the latest row that has it."""
    states = {row["state"] for row in rows}
    return {
        "state": next((state for state in _WORST_FIRST if state in states), None),
        # rows of an older version do not have it, even of the same trace
        "work": _best(rows, lambda row: -row["last_ktime_ns"], lambda row: row["work"] is None)["work"],
        **{name: _greatest(row[name] for row in rows) for name in _WORST},
        **{name: _enough([row[name] for row in rows]) for name in _ENOUGH},
    }


def _enough(limits: Sequence[int | None]) -> int | None:
    return None if None in limits else _greatest(limits)


def _minutes(rows: list[Row]) -> Iterable[Row]:
    """Yield one row for each minute of one cgroup."""
    chosen, stretches = _stretches(rows)
    found = {**_best(rows, lambda row: row["first_ktime_ns"]), **_named(rows)}
    for size in _SIZES:
        known = [row for row in chosen if row[f"mean_{size}"] is not None]
        lengths = [max(row["last_ktime_ns"] - row["first_ktime_ns"], 1) for row in known]
        total = sum(row[f"mean_{size}"] * length for row, length in zip(known, lengths, strict=True))
        found[f"max_{size}"] = _greatest(row[f"max_{size}"] for row in rows)
        found[f"mean_{size}"] = round(total / sum(lengths)) if known else None
    yield {
        **found,
        "first_ktime_ns": min(begin for begin, *_ in stretches),
        "last_ktime_ns": max(end for _, end, _ in stretches),
        **{name: _sum(row[name] for row in chosen) for name in _SUMS},
    }


def _named(rows: list[Row]) -> Row:
    """Return the names and the limit from the latest rows in which each is known."""
    newest = sorted(
        rows,
        key=lambda row: (row["workload"] != NOWHERE, row["last_ktime_ns"], row["trace_id"]),
        reverse=True,
    )
    found: Row = {name: _first(row[name] for row in newest) for name in _NAMES}
    limited = next((row for row in newest if row["is_limited"] is not None), newest[0])
    return {**found, "limit_bytes": limited["limit_bytes"], "is_limited": limited["is_limited"]}


def _stretches(rows: list[Row]) -> tuple[list[Row], list[tuple[int, int, str]]]:
    """Return the rows whose stretches are chosen, and the stretches of all rows."""
    found = [(row["first_ktime_ns"], row["last_ktime_ns"], row["trace_id"]) for row in rows]
    return [rows[place] for place in chosen_stretches(found)], found


def _covered_ns(stretches: Iterable[tuple[int, int, str]]) -> int:
    """Return the time that any of the stretches covers."""
    covered, until = 0, -_FOREVER
    for begin, end, _ in sorted(stretches):
        covered += max(end - max(begin, until), 0)
        until = max(until, end)
    return covered


def _chosen_evictors(table: pa.Table) -> pa.Table:
    """Return the rows of the stretches that are chosen for each minute and owner of page cache."""
    whose = ("owner_cgroup_id", "ktime_ns")
    columns = (*whose, "trace_id", "evictor_cgroup_id", "cause", "first_ktime_ns", "last_ktime_ns")
    boot = pc.coalesce(table["boot_id"], table["trace_id"])
    frame = table.select(columns).append_column(_BOOT, boot).to_pandas(types_mapper=pd.ArrowDtype)
    of_copies = [_BOOT, *columns[:5]]
    frame = frame.sort_values("last_ktime_ns", kind="stable").drop_duplicates(of_copies, keep="last")
    frame["number"] = frame.groupby([_BOOT, *whose], dropna=False, sort=False).ngroup()
    stretches = frame.drop_duplicates(["number", "trace_id"])
    left_out: set[tuple[int, str]] = set()
    for group, rows in stretches[stretches.duplicated("number", keep=False)].groupby("number"):
        names = rows["trace_id"].tolist()
        begins, ends = rows["first_ktime_ns"].tolist(), rows["last_ktime_ns"].tolist()
        chosen = chosen_stretches(list(zip(begins, ends, names, strict=True)))
        left_out |= {(int(str(group)), name) for place, name in enumerate(names) if place not in chosen}
    pairs = zip(frame["number"].tolist(), frame["trace_id"].tolist(), strict=True)
    kept = frame.index.to_numpy()[[pair not in left_out for pair in pairs]]
    return table.take(pa.array(np.sort(kept)))


def _greatest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of the values is not known."""
    listed = list(values)
    return None if None in listed else sum(value or 0 for value in listed)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


_GROUPS: Final[Mapping[str, tuple[Sequence[str], Callable[[list[Row]], Iterable[Row]]]]] = {
    "sources": (("trace_id",), _sources),
    "kills": ((_BOOT, "victim_pid"), _kills),
    "sigkills": ((_BOOT, "pid"), _sigkills),
    "lives": ((_BOOT, "cgroup_id"), _lives),
    "timeline": ((_BOOT, "cgroup_id", "ktime_ns"), _minutes),
}
